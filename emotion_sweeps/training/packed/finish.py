"""The outcome of a trial that trained in a pack, through the very functions that make the solo engine's.

Those functions ask a trainer for predictions; here they get an object that holds predictions which were made for all
ending trials together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emotion_sweeps.lora.packed_model import PackedModel
from emotion_sweeps.training.engine import TrialPlan
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.packed.trial import Slot
from emotion_sweeps.training.progress import PRUNED
from emotion_sweeps.training.results import generation_outcome, head_outcome


class _Predicted:
    """A `FinishedHead` or `FinishedGeneration` of whom all is known already."""

    multilabel: bool
    tune_thresholds: bool
    split_seed: int

    def __init__(self, plan: TrialPlan, validation_rows: Any, details: Any, test: Any) -> None:
        self.plan, self.validation_rows, self.best_details, self.test = plan, validation_rows, details, test

    def decode(self, rows: Any) -> Any:
        """The decoded answers of the validation part."""
        return self.best_details

    def predict_logits(self, input_ids: Any) -> Any:
        """The logits of the test part."""
        return self.test

    def evaluate_rows(self, rows: Any) -> Any:
        """Metrics and decoded answers of the test part."""
        return self.test


def _split(ended: dict[int, Slot]) -> tuple[list[int], list[int]]:
    """Slots whose kept evaluation was before a resume, and slots that get a test prediction."""
    without = [index for index, slot in ended.items() if slot.best_details is None]
    return without, [index for index, slot in ended.items() if slot.plan.progress.status != PRUNED]


def head_outcomes(
    task: Any, pack: PackedModel, autocast: Any, ended: dict[int, Slot], max_rows: int
) -> dict[int, Outcome]:
    """Outcomes of class heads, by slot."""
    without, tested = _split(ended)
    if without:
        for index, logits in zip(
            without, task.predict(pack, autocast, without, task.validation.input_ids, max_rows), strict=True
        ):
            ended[index].best_details = logits
    test_logits: dict[int, np.ndarray] = {}
    if task.test is not None and tested:
        predicted = task.predict(pack, autocast, tested, task.test.input_ids, max_rows)
        test_logits = dict(zip(tested, predicted, strict=True))
    outcomes = {}
    for index, slot in ended.items():
        view = _Predicted(slot.plan, task.validation, slot.best_details, test_logits.get(index))
        view.multilabel, view.tune_thresholds = task.multilabel, task.evaluation["tune"]
        view.split_seed = task.evaluation["seed"]
        outcomes[index] = head_outcome(view, task.test, task.label_names)
    return outcomes


def generation_outcomes(
    task: Any, pack: PackedModel, autocast: Any, ended: dict[int, Slot], max_rows: int
) -> dict[int, Outcome]:
    """Outcomes of label generation, by slot."""
    without, tested = _split(ended)
    if without:
        decoded = task.decode(pack, autocast, without, task.validation, max_rows)
        for index, own in zip(without, decoded, strict=True):
            ended[index].best_details = own
    scored: dict[int, Any] = {}
    if task.test is not None and tested:
        scored = dict(zip(tested, task.score(pack, autocast, tested, task.test, max_rows), strict=True))
    outcomes = {}
    for index, slot in ended.items():
        view = _Predicted(slot.plan, task.validation, slot.best_details, scored.get(index))
        outcomes[index] = generation_outcome(view, task.test, task.label_names)
    return outcomes
