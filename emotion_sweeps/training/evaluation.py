"""From validation scores to what is reported: cross-fitted metrics, final thresholds, predicted rows. Pure
numpy.

Both engines call it, so that a trial's numbers do not depend on where it ran. With `tune` on, validation
metrics come from cross-fitted predictions; the thresholds that the saved adapter carries are tuned on all
validation rows, and predicted validation rows stay the cross-fitted ones.
"""

from __future__ import annotations

import numpy as np

from emotion_sweeps.training.metrics import classification_metrics, predict_labels, probabilities_of
from emotion_sweeps.training.thresholds import cross_fitted_predictions, tune_thresholds


def validation_predictions(
    logits: np.ndarray, labels: np.ndarray, *, multilabel: bool, tune: bool, seed: int
) -> np.ndarray:
    """Predicted validation rows, uint8: cross-fitted where thresholds are tuned, else at .5 or by argmax."""
    probabilities = probabilities_of(logits, multilabel=multilabel)
    if multilabel and tune:
        return cross_fitted_predictions(probabilities, labels, seed)
    return predict_labels(probabilities, 0.5, multilabel=multilabel)


def validation_metrics(
    logits: np.ndarray, labels: np.ndarray, *, multilabel: bool, tune: bool, seed: int
) -> dict[str, float]:
    """The metrics of one evaluation of a class head."""
    predicted = validation_predictions(logits, labels, multilabel=multilabel, tune=tune, seed=seed)
    return classification_metrics(logits, labels, multilabel=multilabel, predicted=predicted)


def final_thresholds(logits: np.ndarray, labels: np.ndarray, *, multilabel: bool, tune: bool) -> np.ndarray | None:
    """The thresholds for test and for the saved adapter; None for single-label tasks."""
    if not multilabel:
        return None
    if not tune:
        return np.full(labels.shape[1], 0.5)
    return tune_thresholds(probabilities_of(logits, multilabel=True), labels)
