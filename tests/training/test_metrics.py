"""Against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from emotion_sweeps.errors import UserError
from emotion_sweeps.training.metrics import (
    BETTER,
    classification_metrics,
    direction,
    example_nll,
    is_better,
    label_metrics,
    metric_value,
    per_label_report,
    predict_labels,
    probabilities_of,
)


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    """Logits and multi-hot labels with a label never gold, one never predicted and rows without labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 6)).astype(np.float32) * 2
    labels = (rng.random((200, 6)) < 0.3).astype(np.uint8)
    labels[:, 4] = 0
    logits[:, 5] = -9
    labels[:10] = 0
    logits[:5] = -9
    return logits, labels


def test_label_metrics_are_scikit_learns(scores: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scores
    predicted = (logits > 0).astype(np.uint8)
    found = label_metrics(predicted, labels)
    for average in ("macro", "micro"):
        for name in ("f1", "precision", "recall"):
            score = getattr(reference, f"{name}_score")
            expected = score(labels, predicted, average=average, zero_division=0)
            assert found[f"{average}_{name}"] == pytest.approx(expected)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    expected = reference.jaccard_score(labels, predicted, average="samples", zero_division=1.0)
    assert found["jaccard"] == pytest.approx(expected)


def test_the_multilabel_loss_is_the_mean_bce(scores: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scores
    probabilities = probabilities_of(logits, multilabel=True)
    expected = np.mean([reference.log_loss(labels[:, j], probabilities[:, j], labels=[0, 1]) for j in range(6)])
    assert example_nll(logits, labels, multilabel=True).mean() == pytest.approx(expected)


def test_single_label_metrics_and_loss_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(150, 4)) * 2, rng.integers(0, 4, 150)
    labels = np.eye(4, dtype=np.uint8)[targets]
    found = classification_metrics(logits, labels, multilabel=False)
    chosen = logits.argmax(1)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(targets, chosen))
    assert found["micro_f1"] == pytest.approx(found["accuracy"])
    assert found["macro_f1"] == pytest.approx(reference.f1_score(targets, chosen, average="macro"))
    probabilities = probabilities_of(logits, multilabel=False)
    assert found["loss"] == pytest.approx(reference.log_loss(targets, probabilities))
    assert not any("at_half" in name for name in found)


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([[800.0, -800.0], [-800.0, 800.0]], np.float32)
    for multilabel in (True, False):
        assert np.isfinite(example_nll(logits, np.eye(2, dtype=np.uint8), multilabel=multilabel)).all()
        assert np.isfinite(probabilities_of(logits, multilabel=multilabel)).all()


def test_thresholds_move_the_tuned_metrics_but_not_those_at_half(scores: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scores
    low = classification_metrics(logits, labels, multilabel=True, thresholds=np.full(6, 0.1))
    half = classification_metrics(logits, labels, multilabel=True)
    assert low["macro_recall"] > half["macro_recall"]
    assert low["macro_f1_at_half"] == half["macro_f1_at_half"] == half["macro_f1"]
    assert low["micro_f1_at_half"] == half["micro_f1"]
    assert set(low) < set(BETTER)


def test_a_probability_on_the_threshold_counts_as_predicted() -> None:
    assert predict_labels(np.array([[0.5, 0.49]]), 0.5, multilabel=True).tolist() == [[1, 0]]
    assert predict_labels(np.array([[0.4, 0.4]]), 0.5, multilabel=False).tolist() == [[1, 0]]


def test_the_per_label_report_is_scikit_learns(scores: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scores
    predicted = (logits > 0).astype(np.uint8)
    rows = per_label_report(predicted, labels, list("abcdef"), np.linspace(0.1, 0.6, 6))
    expected = reference.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose([row[key] for row in rows], values)
    assert [row["label"] for row in rows] == list("abcdef")
    assert rows[0]["threshold"] == pytest.approx(0.1)
    assert per_label_report(predicted, labels, list("abcdef"))[0]["threshold"] is None


def test_directions() -> None:
    assert {name for name in BETTER if direction(name) == "minimize"} == {"loss", "invalid_answers"}
    assert is_better("loss", 0.1, 0.2) and not is_better("loss", 0.2, 0.2)
    assert is_better("macro_f1", 0.2, 0.1) and not is_better("macro_f1", 0.1, 0.2)


def test_an_unknown_metric_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r'macro_f2.*micro_f1.*did you mean "macro_f1"'):
        direction("macro_f2")


def test_a_missing_or_infinite_metric_is_told_with_those_there_are() -> None:
    metrics = {"loss": float("nan"), "macro_f1": 0.5}
    assert metric_value(metrics, "macro_f1") == 0.5
    with pytest.raises(UserError, match="'token_accuracy' is not reported by this task; there are loss, macro_f1"):
        metric_value(metrics, "token_accuracy")
    with pytest.raises(UserError, match="loss is nan, not a finite number"):
        metric_value(metrics, "loss")
