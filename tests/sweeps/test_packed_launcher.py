"""`hydra/launcher=packed`: Hydra's own suite, what Hydra writes for packed jobs, and a study in packs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite

from emotion_sweeps.sweeps.packed_launcher import PackedLauncher

PRODUCT = [
    "model=roberta_tiny",
    "training=smoke",
    "data.max_samples=24",
    "data.max_eval_samples=12",
    "tracking=jsonl",
    "hardware.precision=fp32",
    "training.predict_test=false",
]
ENDS: list[tuple[str, int, Any]] = []  # what callbacks saw: which, job number, status


@pytest.fixture(autouse=True)
def registered() -> None:
    Plugins.instance().register(PackedLauncher)


@pytest.mark.parametrize("launcher_name, overrides", [("packed", [])])
class TestPackedLauncher(LauncherTestSuite):
    """Hydra's tests of any launcher, on tasks that are not ours."""


@pytest.mark.skipif(
    not any(point.name == "packed" for point in entry_points(group="hydra.plugins")),
    reason="the entry point hydra.plugins/packed is not installed: pip install -e . again",
)
@pytest.mark.parametrize("task_launcher_cfg, extra_flags", [({}, ["-m", "hydra/launcher=packed"])])
class TestPackedLauncherIntegration(IntegrationTestSuite):
    """Hydra's tests of any launcher, in processes of their own."""


class Recorder(Callback):
    """A Hydra callback that notes every job's start and end."""

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        ENDS.append(("start", config.hydra.job.num, None))

    def on_job_end(self, config: Any, job_return: JobReturn, **kwargs: Any) -> None:
        ENDS.append(("end", config.hydra.job.num, job_return.status))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, list[JobReturn]]]]:
    """Every launch's log and returns."""
    seen: list[tuple[Any, list[JobReturn]]] = []
    original = PackedLauncher.launch

    def launch(self: PackedLauncher, job_overrides: Any, initial_job_idx: int) -> Any:
        returned = list(original(self, job_overrides, initial_job_idx))
        seen.append((self.log, returned))
        return returned

    monkeypatch.setattr(PackedLauncher, "launch", launch)
    yield seen


def run_command(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    from emotion_sweeps import train

    monkeypatch.chdir(folder)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "hydra/launcher=packed", *PRODUCT, *overrides])
    train._hydra_main()


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_hydras_promises_hold_for_jobs_that_really_were_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launches: list[Any]
) -> None:
    ENDS.clear()
    monkeypatch.setitem(sys.modules, "recorder_of_packs", sys.modules[__name__])
    run_command(
        tmp_path,
        monkeypatch,
        "hydra/sweeper=basic",
        "hydra.sweep.dir=out",
        "hydra.launcher.slots=2",
        "lora.r=9,16,4",
        "scheduler=linear,cosine",
        "lora.use_dora=false,true",
    )
    ((log, returned),) = launches
    assert sorted(log.alone) == [1, 3, 5, 7, 9, 11], "DoRA has no packed form"
    assert sorted(log.packed) == [0, 2, 4, 6, 8, 10]
    assert log.packs == 2, "ranks 9 and 16 share a bucket, 4 does not"
    assert log.most_slots == 2 and log.trial_ticks == 6 * 4 and log.ticks == 3 * 4
    for number, ret in enumerate(returned):
        folder = tmp_path / "out" / str(number)
        hydra = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text())["hydra"]
        config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
        assert ret.status is JobStatus.COMPLETED
        result = result_of(folder)
        assert ret.return_value == pytest.approx(result["objective"]["value"])
        assert ret.overrides == yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
        assert ret.cfg is not None and ret.cfg.lora.r == config["lora"]["r"] == result["lora"]["r"]
        assert hydra["job"]["num"] == number == result["trial_number"] and hydra["job"]["id"] == str(number)
        assert hydra["runtime"]["output_dir"] == str(folder)
        assert ret.working_dir == str(tmp_path)
        assert ("engine" in result) == (number in log.packed)


def test_one_failing_job_is_one_failed_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launches: list[Any]
) -> None:
    with pytest.raises(Exception, match="no_such_module"):
        run_command(
            tmp_path,
            monkeypatch,
            "hydra/sweeper=basic",
            "hydra.sweep.dir=out",
            "hydra.launcher.slots=2",
            "seed=0,1",
            "lora.target_modules=all-linear,[no_such_module]",
        )
    ((log, returned),) = launches
    assert [ret.status for ret in returned] == [JobStatus.COMPLETED, JobStatus.FAILED] * 2
    assert sorted(log.packed) == [0, 2] and sorted(log.alone) == [1, 3]
    assert result_of(tmp_path / "out" / "1")["status"] == "failed"
    assert result_of(tmp_path / "out" / "2")["status"] == "complete"


@pytest.fixture
def packed_studies(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The study sweeper with its trials in packs; what each worker packed."""
    from emotion_sweeps.sweeps import launched, packing_worker

    logs: list[Any] = []
    original = packing_worker.run_packed

    def run(*args: Any) -> Any:
        logs.append(original(*args))
        return logs[-1]

    monkeypatch.setattr(packing_worker, "run_packed", run)
    monkeypatch.setattr(launched, "run_launched", lambda spec, opened, workers: packing_worker.run_packed(spec, opened))
    return logs


def study_of(folder: Path) -> tuple[optuna.Study, Path]:
    (sweep_dir,) = (folder / "multirun").iterdir()
    return optuna.load_study(study_name=sweep_dir.name, storage=f"sqlite:///{sweep_dir}/study.db"), sweep_dir


def test_a_study_is_trained_in_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed_studies: list[Any]
) -> None:
    cells = ("hydra/sweeper=study", "hydra.launcher.slots=3", "lora.r=16,12", "scheduler=linear,cosine", "seed=0,1")
    run_command(tmp_path, monkeypatch, *cells)
    study, folder = study_of(tmp_path)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 8
    (log,) = packed_studies
    assert sorted(log.packed) == list(range(8)) and not log.alone and log.packs == 1
    assert log.most_slots == 3
    for trial in study.trials:
        result = result_of(folder / str(trial.number))
        assert result["engine"] == "packed" and result["trial_number"] == trial.number
        assert trial.value == pytest.approx(result["objective"]["value"])
        assert result["lora"]["r"] == trial.params["lora.r"]
        assert (folder / str(trial.number) / ".hydra" / "config.yaml").is_file()
    run_command(tmp_path, monkeypatch, *cells)
    assert len(study_of(tmp_path)[0].trials) == 8 and not packed_studies[1].packed


def test_pruned_trials_free_their_slots_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed_studies: list[Any]
) -> None:
    run_command(
        tmp_path,
        monkeypatch,
        "hydra/sweeper=study",
        "hydra.launcher.slots=3",
        "seed=range(0,9)",
        "sweep.pruner=halving",
        "training.max_steps=null",
        "training.epochs=3",
    )
    study, folder = study_of(tmp_path)
    states = [t.state.name for t in study.trials]
    assert states.count("COMPLETE") >= 1 and states.count("PRUNED") >= 3 and len(states) == 9
    (log,) = packed_studies
    assert log.most_slots == 3 and log.packs >= 1
    full = 9 * max(
        result_of(folder / str(n))["num_steps"] for n in range(9) if (folder / str(n) / "result.json").exists()
    )
    assert log.trial_ticks < full, "pruning trained less than the whole grid"
    for trial in study.trials:
        assert (
            result_of(folder / str(trial.number))["status"]
            == {"COMPLETE": "complete", "PRUNED": "pruned"}[trial.state.name]
        )


def test_a_failing_trial_does_not_stop_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed_studies: list[Any]
) -> None:
    rates = "lora.learning_rate=1e-3,1e30,2e-3,3e-3"
    run_command(
        tmp_path, monkeypatch, "hydra/sweeper=study", "hydra.launcher.slots=2", rates, "training.max_grad_norm=1e30",
        "scheduler=constant", "sweep.max_retries=0",
    )  # fmt: skip
    study, folder = study_of(tmp_path)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert "diverged" in (folder / "1" / "error.txt").read_text()
    assert packed_studies[0].most_slots == 2


def test_the_launcher_is_light_to_import() -> None:
    import subprocess

    heavy = ["torch", "transformers", "peft", "optuna", "trl"]
    code = f"import sys, emotion_sweeps.sweeps.packed_launcher; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_an_interrupted_pack_gives_its_trials_back_and_goes_on_from_their_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed_studies: list[Any]
) -> None:
    from emotion_sweeps.training.packed.engine import PackEngine

    command = (
        "hydra/sweeper=study",
        "hydra.launcher.slots=2",
        "seed=0,1,2",
        "training.max_steps=null",
        "training.epochs=4",
        "lora.dropout=0",
    )
    original, ticks = PackEngine._tick, 0

    def tick(self: PackEngine) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 8:  # an epoch has 3 steps: both trials have two checkpoints behind them
            raise KeyboardInterrupt
        original(self)

    monkeypatch.setattr(PackEngine, "_tick", tick)
    with pytest.raises(KeyboardInterrupt):
        run_command(tmp_path, monkeypatch, *command)
    study, folder = study_of(tmp_path)
    assert [t.state.name for t in study.trials] == ["RUNNING"] * 2, "given back, not failed"
    assert [p.name for p in folder.glob("[01]/checkpoints/checkpoint-*")] == ["checkpoint-6"] * 2
    assert [result_of(folder / str(n))["error"]["class"] for n in (0, 1)] == ["KeyboardInterrupt"] * 2
    monkeypatch.setattr(PackEngine, "_tick", original)
    run_command(tmp_path, monkeypatch, *command)
    study, folder = study_of(tmp_path)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 3
    (log,) = packed_studies
    assert log.trial_ticks == 2 * 6 + 12, "the interrupted trials had half of their steps left"
    for number in range(3):
        records = [json.loads(line) for line in (folder / str(number) / "metrics.jsonl").read_text().splitlines()]
        assert {r["step"] for r in records if r["kind"] == "eval"} == {3, 6, 9, 12}


def test_the_number_of_slots_must_make_sense() -> None:
    from emotion_sweeps.errors import UserError

    with pytest.raises(UserError, match="hydra.launcher.slots must be >= 1, got 0"):
        PackedLauncher(0)
