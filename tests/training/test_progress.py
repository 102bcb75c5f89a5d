from __future__ import annotations

import json

import pytest

from emotion_sweeps.errors import UserError
from emotion_sweeps.training.progress import DONE, EARLY, PRUNED, RUNNING, DivergedError, TrialProgress


def metrics(loss: float, macro_f1: float = 0.5) -> dict[str, float]:
    return {"loss": loss, "macro_f1": macro_f1}


def test_each_metric_has_its_own_best_and_the_first_of_equals() -> None:
    progress = TrialProgress("loss", 100)
    kept = [
        progress.evaluated(step, step / 10, metrics(loss, f1))
        for step, loss, f1 in [(10, 0.5, 0.1), (20, 0.3, 0.2), (30, 0.3, 0.4), (40, 0.4, 0.4)]
    ]
    assert kept == [True, True, False, False]
    assert progress.best["loss"] == {"value": 0.3, "step": 20, "epoch": 2.0}
    assert progress.best["macro_f1"] == {"value": 0.4, "step": 30, "epoch": 3.0}
    assert progress.kept == {"step": 20, "epoch": 2.0, "metrics": metrics(0.3, 0.2)}
    assert progress.status == RUNNING


def test_patience_counts_from_the_best() -> None:
    progress = TrialProgress("loss", 100, patience=2)
    statuses = []
    for step, loss in [(10, 0.5), (20, 0.6), (30, 0.4), (40, 0.5), (50, 0.4)]:
        progress.evaluated(step, step / 10, metrics(loss))
        statuses.append(progress.status)
    assert statuses == [RUNNING] * 4 + [EARLY]


def test_pruning_is_asked_after_each_evaluation_but_the_last() -> None:
    answers = iter([False, True])
    progress = TrialProgress("loss", 30, should_stop=lambda: next(answers))
    progress.evaluated(10, 1.0, metrics(0.5))
    assert progress.status == RUNNING
    progress.evaluated(20, 2.0, metrics(0.4))
    assert progress.status == PRUNED
    progress = TrialProgress("loss", 30, should_stop=lambda: True)
    progress.evaluated(30, 3.0, metrics(0.5))
    assert progress.status == DONE


def test_a_state_goes_through_json() -> None:
    progress = TrialProgress("loss", 100, patience=2)
    progress.evaluated(10, 1.0, metrics(0.5))
    progress.evaluated(20, 2.0, metrics(0.6))
    other = TrialProgress("loss", 100, patience=2)
    other.load(json.loads(json.dumps(progress.state())))
    other.evaluated(30, 3.0, metrics(0.6))
    assert other.status == EARLY
    assert other.kept["step"] == 10


def test_what_cannot_be_chosen_by_is_refused() -> None:
    with pytest.raises(DivergedError, match="loss is inf at step 7; lower lora.learning_rate"):
        TrialProgress("loss", 100).evaluated(7, 0.1, metrics(float("inf")))
    with pytest.raises(UserError, match="'invalid_answers' is not reported"):
        TrialProgress("invalid_answers", 100).evaluated(7, 0.1, metrics(0.5))
    state = TrialProgress("macro_f1", 100).state()
    with pytest.raises(UserError, match="training.resume=false"):
        TrialProgress("loss", 100).load(state)
