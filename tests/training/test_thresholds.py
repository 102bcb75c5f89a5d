"""Against brute force, and honesty on scores that know nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from emotion_sweeps.training.evaluation import final_thresholds, validation_metrics, validation_predictions
from emotion_sweeps.training.metrics import label_metrics, predict_labels, probabilities_of
from emotion_sweeps.training.thresholds import cross_fitted_predictions, stratified_halves, tune_thresholds


def macro_f1(probabilities: np.ndarray, labels: np.ndarray, thresholds: float | np.ndarray) -> float:
    predicted = predict_labels(probabilities, thresholds, multilabel=True)
    return label_metrics(predicted, labels)["macro_f1"]


def informative(rows: int, seed: int, num_labels: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Rare labels whose scores are informative but too low for .5."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, num_labels)) < np.linspace(0.03, 0.3, num_labels)).astype(np.uint8)
    logits = rng.normal(size=labels.shape) + 2.0 * labels - 3.0
    return 1 / (1 + np.exp(-logits)), labels


@pytest.mark.parametrize("seed", range(5))
def test_without_a_prior_each_label_has_its_best_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, labels = informative(60, seed)
    probabilities = np.round(probabilities, 2)  # equal scores cannot be told apart
    labels[rng.integers(60), :] = 1
    thresholds = tune_thresholds(probabilities, labels, prior_positives=0)
    for j, threshold in enumerate(thresholds):
        scores, gold = probabilities[:, j], labels[:, j]
        reachable = [f1_score(gold, scores >= cut, zero_division=0) for cut in [*np.unique(scores), 2.0]]
        assert f1_score(gold, scores >= threshold, zero_division=0) == pytest.approx(max(reachable))


def test_one_half_is_kept_where_it_is_as_good_and_where_nothing_is_known() -> None:
    labels = np.array([[1, 0], [0, 0], [1, 0]], np.uint8)
    probabilities = np.array([[0.9, 0.3], [0.2, 0.8], [0.7, 0.1]])
    assert tune_thresholds(probabilities, labels, prior_positives=0).tolist() == [0.5, 0.5]
    assert tune_thresholds(probabilities, np.zeros_like(labels)).tolist() == [0.5, 0.5]


def test_ties_go_towards_one_half() -> None:
    """Cutting under .9 or under .6 gives F1 2/3 both; the lower cut is nearer to .5."""
    probabilities = np.array([[0.95], [0.9], [0.6], [0.55], [0.01], [0.005]])
    labels = np.array([[1], [0], [0], [0], [0], [0]], np.uint8)
    labels[3] = 1
    assert f1_score(labels, probabilities >= 0.92) == pytest.approx(f1_score(labels, probabilities >= 0.5))
    assert tune_thresholds(probabilities, labels, prior_positives=0)[0] == 0.5


def test_few_positives_are_pulled_towards_the_common_threshold() -> None:
    probabilities, labels = informative(2000, 0)
    labels[:, 0] = 0
    labels[int(probabilities[:, 0].argmax()), 0] = 1  # one positive, with the highest score: its own optimum is extreme
    own = tune_thresholds(probabilities, labels, prior_positives=0)
    pulled = tune_thresholds(probabilities, labels)
    common = tune_thresholds(probabilities, labels, prior_positives=1e9)
    assert np.ptp(common) < 1e-6
    assert abs(pulled[0] - common[0]) < abs(own[0] - common[0]) / 2
    assert abs(pulled[-1] - own[-1]) < 0.1 * abs(common[-1] - own[-1]) + 1e-9


def test_the_prior_helps_on_rows_that_it_was_not_tuned_on() -> None:
    gains = []
    for seed in range(20):
        (p, y), (fresh_p, fresh_y) = informative(100, seed), informative(2000, 1000 + seed)
        tuned = [macro_f1(fresh_p, fresh_y, tune_thresholds(p, y, prior_positives=k)) for k in (0.0, 5.0)]
        gains.append(tuned[1] - tuned[0])
    assert np.mean(gains) > 0.01


def test_tuning_beats_one_half_where_scores_are_too_low() -> None:
    (p, y), (fresh_p, fresh_y) = informative(1000, 0), informative(1000, 1)
    assert macro_f1(fresh_p, fresh_y, tune_thresholds(p, y)) > macro_f1(fresh_p, fresh_y, 0.5) + 0.1


def test_halves_hold_half_of_every_label() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((501, 8)) < np.linspace(0.01, 0.5, 8)).astype(np.uint8)
    half = stratified_halves(labels, seed=1)
    assert abs(int((half == 0).sum()) - int((half == 1).sum())) <= 1
    counts = [labels[half == side].sum(0).astype(int) for side in (0, 1)]
    assert np.abs(counts[0] - counts[1]).max() <= 3
    np.testing.assert_array_equal(half, stratified_halves(labels, seed=1))
    assert (half != stratified_halves(labels, seed=2)).any()


def test_cross_fitting_does_not_flatter_scores_that_know_nothing() -> None:
    """In-sample tuning finds signal in noise; cross-fitting must report what its thresholds give on fresh rows."""
    crossed, in_sample, fresh = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        draw = [(rng.random((200, 8)), (rng.random((200, 8)) < 0.06).astype(np.uint8)) for _ in range(2)]
        (probabilities, labels), (fresh_probabilities, fresh_labels) = draw
        in_sample.append(macro_f1(probabilities, labels, tune_thresholds(probabilities, labels)))
        predicted = cross_fitted_predictions(probabilities, labels, seed=0)
        crossed.append(label_metrics(predicted, labels)["macro_f1"])
        half, fresh_half = stratified_halves(labels, 0), stratified_halves(fresh_labels, 0)
        thresholds = [tune_thresholds(probabilities[half == side], labels[half == side]) for side in (0, 1)]
        fresh_predicted = (fresh_probabilities >= np.stack(thresholds)[1 - fresh_half]).astype(np.uint8)
        fresh.append(label_metrics(fresh_predicted, fresh_labels)["macro_f1"])
    assert np.mean(in_sample) > np.mean(fresh) + 0.015  # the margin that must not be reported
    assert abs(np.mean(crossed) - np.mean(fresh)) < 0.005


def test_a_rows_prediction_does_not_depend_on_its_own_label() -> None:
    probabilities, labels = informative(80, 3)
    half = stratified_halves(labels, 0)
    for side in (0, 1):
        thresholds = tune_thresholds(probabilities[half != side], labels[half != side])
        predicted = cross_fitted_predictions(probabilities, labels, seed=0)
        np.testing.assert_array_equal(predicted[half == side], probabilities[half == side] >= thresholds)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_handful_of_rows_is_no_error(rows: int) -> None:
    labels = np.ones((rows, 2), np.uint8)
    assert cross_fitted_predictions(np.full((rows, 2), 0.7), labels, seed=0).shape == (rows, 2)


def test_the_reported_metrics_come_from_cross_fitted_rows() -> None:
    probabilities, labels = informative(300, 5)
    logits = np.log(probabilities / (1 - probabilities))
    tuned = validation_metrics(logits, labels, multilabel=True, tune=True, seed=0)
    predicted = validation_predictions(logits, labels, multilabel=True, tune=True, seed=0)
    assert tuned["macro_f1"] == label_metrics(predicted, labels)["macro_f1"]
    assert tuned["macro_f1_at_half"] == pytest.approx(macro_f1(probabilities, labels, 0.5))
    fixed = validation_metrics(logits, labels, multilabel=True, tune=False, seed=0)
    assert fixed["macro_f1"] == fixed["macro_f1_at_half"] == tuned["macro_f1_at_half"]
    assert fixed["loss"] == tuned["loss"]


def test_final_thresholds_use_all_rows() -> None:
    probabilities, labels = informative(300, 5)
    logits = np.log(probabilities / (1 - probabilities))
    tuned = final_thresholds(logits, labels, multilabel=True, tune=True)
    expected = tune_thresholds(probabilities_of(logits, multilabel=True), labels)
    np.testing.assert_array_equal(tuned, expected)
    assert final_thresholds(logits, labels, multilabel=True, tune=False).tolist() == [0.5] * 6  # type: ignore[union-attr]
    assert final_thresholds(logits, labels, multilabel=False, tune=True) is None
