"""Pruners inside a sweep: pauses, promotions and ends through the storage, in one process and in several."""

from __future__ import annotations

import pytest
from sweep_kit import FOUR

from emotion_sweeps.errors import UserError

NINE = ("lora.r=8,16,24,32,40,48,56,64,72",)
HALVING = ("sweep.pruner=halving", "sweep.reduction_factor=3", "training.epochs=9", "training.evals_per_epoch=1")


def steps_of(study) -> int:
    return sum(len(t.intermediate_values) for t in study.trials)


def test_halving_prunes_from_the_first_rung_and_keeps_the_best(sweeps):
    sweeps.run(*NINE, *HALVING, evals=9)
    study = sweeps.study()
    states = [t.state.name for t in study.trials]
    assert states.count("COMPLETE") == 1 and states.count("PRUNED") == 8
    assert study.best_params == {"lora.r": 24}
    assert steps_of(study) <= 0.35 * 81
    pruned = [t for t in study.trials if t.state.name == "PRUNED"]
    assert all(t.value == pytest.approx(min(t.intermediate_values.values())) for t in pruned)
    starts = [line[1] for line in sweeps.lines("start")]
    assert len(starts) > 9  # paused ones were resumed in their folder
    assert (sweeps.sweep_dir() / "2" / "attempts").read_text() != "1"
    assert not list(sweeps.sweep_dir().glob("*/checkpoints"))
    sweeps.clear_log()
    sweeps.run(*NINE, *HALVING, evals=9)
    assert sweeps.lines("start") == []


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median"])
def test_other_pruners_end_and_find_the_best(sweeps, pruner):
    sweeps.run(*NINE, *HALVING[1:], f"sweep.pruner={pruner}", evals=9)
    study = sweeps.study()
    states = [t.state.name for t in study.trials]
    assert states.count("COMPLETE") >= 1 and states.count("PRUNED") >= 1 and len(states) == 9
    assert study.best_params == {"lora.r": 24} and steps_of(study) < 9 * 9


@pytest.mark.slow
def test_halving_has_the_same_outcome_with_several_workers(sweeps):
    process = sweeps.start(*NINE, *HALVING, "sweep.workers=3", evals=9, sleep_s=0.02)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    study = sweeps.study()
    assert [t.state.name for t in study.trials].count("COMPLETE") == 1
    assert study.best_params == {"lora.r": 24} and steps_of(study) <= 0.35 * 81


def test_with_replicates_a_pruner_judges_the_mean_seed_by_seed(sweeps):
    sweeps.run("lora.r=24,16,64", "sweep.replicates=2", "sweep.pruner=median", "sweep.min_resource=1")
    study = sweeps.study()
    best, worst = study.trials[0], study.trials[2]
    assert best.state.name == "COMPLETE" and len(best.intermediate_values) == 2
    assert worst.state.name == "PRUNED" and len(worst.intermediate_values) == 1


def test_several_objectives_refuse_a_pruner_and_give_a_pareto_front(sweeps):
    both = ("objective.metric=[loss,macro_f1]",)
    with pytest.raises(UserError, match="needs one objective, got 2"):
        sweeps.run(*FOUR, *both, "sweep.pruner=asha")
    sweeps.run(*FOUR, *both, evals=2)
    study = sweeps.study()
    assert [d.name for d in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert [t.number for t in study.best_trials] == [3]
    assert study.metric_names == ["loss", "macro_f1"]
