"""Label-level metrics in plain numpy, one set of names for heads and for decoded text.

loss = mean over examples of the unweighted, unsmoothed NLL (multi-label: mean over labels of BCE;
single-label: cross-entropy). F1, precision and recall are 0 where they are undefined; jaccard is the mean
over examples of |both| / |either|, 1 where both are empty; accuracy is the share of rows met exactly. Held
against scikit-learn by tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emotion_sweeps.errors import UserError, did_you_mean

BETTER: dict[str, str] = {
    "loss": "minimize",
    "macro_f1": "maximize",
    "micro_f1": "maximize",
    "macro_precision": "maximize",
    "macro_recall": "maximize",
    "micro_precision": "maximize",
    "micro_recall": "maximize",
    "accuracy": "maximize",
    "jaccard": "maximize",
    "macro_f1_at_half": "maximize",
    "micro_f1_at_half": "maximize",
    "token_accuracy": "maximize",
    "invalid_answers": "minimize",
}


def direction(metric: str) -> str:
    """`minimize` or `maximize`, for one of the names in `BETTER`."""
    if metric not in BETTER:
        raise UserError(
            f"objective.metric: unknown metric {metric!r}; choose from {', '.join(BETTER)}"
            f"{did_you_mean(metric, BETTER)}"
        )
    return BETTER[metric]


def is_better(metric: str, value: float, than: float) -> bool:
    """Whether `value` is strictly better than `than`."""
    return value < than if direction(metric) == "minimize" else value > than


def metric_value(metrics: Mapping[str, float], metric: str) -> float:
    """The metric called `metric`.

    Raises:
        UserError: this task does not report it, or it is not a finite number.
    """
    there = ", ".join(sorted(metrics))
    if metric not in metrics:
        raise UserError(
            f"objective.metric: {metric!r} is not reported by this task; there are {there}"
            f"{did_you_mean(metric, metrics)}"
        )
    value = float(metrics[metric])
    if not math.isfinite(value):
        raise UserError(f"objective.metric: {metric} is {value}, not a finite number; there are {there}")
    return value


def probabilities_of(logits: np.ndarray, *, multilabel: bool) -> np.ndarray:
    """Sigmoid or softmax of `(num_examples, num_labels)` logits, in float64."""
    x = logits.astype(np.float64)
    if multilabel:
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def example_nll(logits: np.ndarray, labels: np.ndarray, *, multilabel: bool) -> np.ndarray:
    """Unweighted, unsmoothed NLL of each example, `(num_examples,)` float64."""
    x, y = logits.astype(np.float64), labels.astype(np.float64)
    if multilabel:
        return np.asarray((np.logaddexp(0.0, x) - x * y).mean(-1))
    top = x.max(-1)
    log_sum = top + np.log(np.exp(x - top[:, None]).sum(-1))
    return np.asarray(log_sum - (x * y).sum(-1))


def predict_labels(probabilities: np.ndarray, thresholds: float | np.ndarray, *, multilabel: bool) -> np.ndarray:
    """Predicted rows, uint8: at or above the threshold, or the first most probable label of single-label
    tasks."""
    if multilabel:
        return np.asarray(probabilities >= thresholds, np.uint8)
    predicted = np.zeros(probabilities.shape, np.uint8)
    predicted[np.arange(len(predicted)), probabilities.argmax(-1)] = 1
    return predicted


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0))


def _counts(predicted: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, predictions and gold labels a label, float64."""
    hits = (predicted & labels).sum(0).astype(np.float64)
    return hits, predicted.sum(0).astype(np.float64), labels.sum(0).astype(np.float64)


def label_metrics(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Every metric that compares predicted with gold rows, both `(num_examples, num_labels)` uint8
    multi-hot."""
    hits, chosen, gold = _counts(predicted, labels)
    both, either = (predicted & labels).sum(-1), (predicted | labels).sum(-1)
    jaccard = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    return {
        "macro_f1": float(_ratio(2 * hits, chosen + gold).mean()),
        "micro_f1": float(_ratio(2 * hits.sum(), chosen.sum() + gold.sum())),
        "macro_precision": float(_ratio(hits, chosen).mean()),
        "macro_recall": float(_ratio(hits, gold).mean()),
        "micro_precision": float(_ratio(hits.sum(), chosen.sum())),
        "micro_recall": float(_ratio(hits.sum(), gold.sum())),
        "accuracy": float((predicted == labels).all(-1).mean()),
        "jaccard": float(jaccard.mean()),
    }


def classification_metrics(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    multilabel: bool,
    thresholds: float | np.ndarray = 0.5,
    predicted: np.ndarray | None = None,
) -> dict[str, float]:
    """Loss and label metrics of a class head.

    Args:
        logits: `(num_examples, num_labels)`.
        labels: the same shape, uint8 multi-hot.
        thresholds: one for all labels or one a label (multi-label).
        predicted: rows to score instead of those at `thresholds` (cross-fitted ones).
    """
    probabilities = probabilities_of(logits, multilabel=multilabel)
    if predicted is None:
        predicted = predict_labels(probabilities, thresholds, multilabel=multilabel)
    metrics = {"loss": float(example_nll(logits, labels, multilabel=multilabel).mean())}
    metrics |= label_metrics(predicted, labels)
    if multilabel:
        half = label_metrics(predict_labels(probabilities, 0.5, multilabel=True), labels)
        metrics |= {"macro_f1_at_half": half["macro_f1"], "micro_f1_at_half": half["micro_f1"]}
    return metrics


def per_label_report(
    predicted: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str],
    thresholds: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """One row a label: support, precision, recall, F1 and the threshold (None where there is none)."""
    hits, chosen, gold = _counts(predicted, labels)
    precision, recall, f1 = _ratio(hits, chosen), _ratio(hits, gold), _ratio(2 * hits, chosen + gold)
    return [
        {
            "label": name,
            "support": int(gold[i]),
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "threshold": None if thresholds is None else float(thresholds[i]),
        }
        for i, name in enumerate(label_names)
    ]
