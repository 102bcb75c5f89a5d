"""Trials through Hydra's launchers, and the seam without a study."""

from __future__ import annotations

from collections import Counter

import pytest
from sweep_kit import FOUR

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps.pool import worker_environments
from emotion_sweeps.sweeps.source import Claim, ListSource, Outcome
from emotion_sweeps.sweeps.worker import work


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "package"),
    [("joblib", "joblib"), ("submitit_local", "submitit"), pytest.param("ray", "ray", marks=pytest.mark.ray)],
)
def test_each_cell_runs_once_through_a_launcher(sweeps, launcher, package):
    pytest.importorskip(package)
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    process = sweeps.start(*FOUR, "sweep.workers=2", f"hydra/launcher={launcher}", evals=2)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    study = sweeps.study()
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 4
    assert Counter(line[1] for line in sweeps.lines("end")) == dict.fromkeys("0123", 1)
    for trial in study.trials:
        assert sorted(trial.intermediate_values) == [1, 2]
        assert (sweeps.sweep_dir() / str(trial.number) / ".hydra" / "config.yaml").is_file()


@pytest.mark.slow
def test_failures_and_pruning_reach_through_a_launcher(sweeps):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    more = (
        "sweep.workers=2",
        "hydra/launcher=joblib",
        "sweep.pruner=halving",
        "training.epochs=9",
        "training.evals_per_epoch=1",
    )
    process = sweeps.start("lora.r=8,16,24,32,40,48", *more, evals=9, fail="lora.r=16")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    states = Counter(t.state.name for t in sweeps.study().trials)
    assert states["FAIL"] == 1 and states["COMPLETE"] >= 1 and states["PRUNED"] >= 1
    failed = next(t for t in sweeps.study().trials if t.state.name == "FAIL")
    text = (sweeps.sweep_dir() / str(failed.number) / "error.txt").read_text()
    assert "made to fail" in text and "toy.py" in text


def test_replicates_through_a_launcher_are_refused(sweeps):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    with pytest.raises(UserError, match="sweep.replicates > 1 runs in our own workers"):
        sweeps.run("lora.r=8,16", "sweep.replicates=2", "hydra/launcher=joblib")


def test_a_list_of_jobs_is_worked_off_by_the_same_worker():
    source = ListSource([["a=1"], ["a=2"], ["a=3"]], first_number=4)
    ran: list[Claim] = []
    told: list[int] = []

    def run(claim, source, handle_made):
        ran.append(claim)
        return Outcome("complete", (float(claim.number),))

    work(source, run, lease_s=60, on_end=lambda claim, outcome: told.append(claim.number))
    assert [c.overrides for c in ran] == [("a=1",), ("a=2",), ("a=3",)]
    assert told == [4, 5, 6] and source.outcomes[5] == Outcome("complete", (5.0,)) and source.done()


@pytest.mark.parametrize(
    ("workers", "gpus", "expected"),
    [
        (3, ["0", "1"], [{"CUDA_VISIBLE_DEVICES": g} for g in "010"]),
        (2, ["GPU-a", "GPU-b", "GPU-c"], [{"CUDA_VISIBLE_DEVICES": "GPU-a"}, {"CUDA_VISIBLE_DEVICES": "GPU-b"}]),
        (2, ["0"], [{}, {}]),
        (4, [], [{"OMP_NUM_THREADS": "2"}] * 4),
    ],
)
def test_gpus_or_cores_are_shared_out(monkeypatch, workers, gpus, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert worker_environments(workers, gpus, cores=8) == expected
