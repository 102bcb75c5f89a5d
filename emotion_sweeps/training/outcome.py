"""What a finished trial hands to its builder; the dicts have the shape that result.json writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """Predictions for one split, in the order of its rows.

    `labels` `(num_examples, num_labels)` uint8; `probabilities` the same shape for heads; `texts` the decoded
    answers of generation and `valid` whether each could be parsed. Validation rows of a multi-label head are
    predicted with cross-fitted thresholds, so these are the rows that the validation metrics were computed
    from.
    """

    ids: list[str]
    labels: np.ndarray
    probabilities: np.ndarray | None = None
    texts: list[str] | None = None
    valid: list[bool] | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of a trial; the model holds the kept weights.

    `status` is done, stopped early or pruned. `best` holds every metric's best evaluation, `selection` the
    one that the kept weights were chosen by, `kept` and `final` {"step", "epoch", "metrics"}; `thresholds` is
    None where labels are not decided by thresholds. `train_time_s` is without evaluations.
    `label_probabilities` is what a generator's label probabilities score and how they were found.
    """

    status: str
    best: dict[str, dict[str, Any]]
    selection: dict[str, Any]
    kept: dict[str, Any]
    final: dict[str, Any]
    evaluations: list[dict[str, Any]]
    per_label: list[dict[str, Any]]
    thresholds: list[float] | None
    validation: Predictions
    test: Predictions | None
    test_metrics: dict[str, float] | None
    num_steps: int
    train_time_s: float
    evaluate_time_s: float
    memory: list[dict[str, Any]]
    label_probabilities: dict[str, Any] | None = None

    @property
    def pruned(self) -> bool:
        """Whether the study ended it before its last step."""
        return self.status == "pruned"
