"""Decision thresholds of multi-label heads, tuned for F1 without flattering the validation scores.

Each label's own threshold is the exact F1 maximum over the cuts between its sorted scores (midpoints; .5
where .5 cuts the same). With few positives that optimum is mostly noise, so in log-odds it is shrunk towards
the one threshold that is best for macro-F1 over all labels, with the weight of `PRIOR_POSITIVES` = 5 extra
positives. Measured on held-out GoEmotions comments (28 labels, TF-IDF + logistic regression, 12 draws;
unweighted / balanced scores): macro-F1 .335 / .383 instead of .294 / .344 when tuned on 100 rows, .373 / .378
instead of .365 / .363 on 500, within .005 from 1,000 on.

Cross-fitting: the validation rows are split into two label-stratified halves, each predicted with the
thresholds of the other, so no row is scored with a threshold that was tuned on it.
"""

from __future__ import annotations

import numpy as np

PRIOR_POSITIVES = 5.0
_TINY = 1e-6


def _logit(p: np.ndarray | float) -> np.ndarray:
    clipped = np.clip(p, _TINY, 1 - _TINY)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _best_cut(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold of highest F1 for one label with at least one positive; ties go to the one nearest to
    .5."""
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    hits = np.cumsum(labels[order], dtype=np.int64)
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + hits[-1])
    below = np.append(descending[1:], 0.0)
    f1[descending == below] = -1.0  # a cut cannot separate equal scores
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    high, low = descending[best], below[best]
    cuts = np.where((low < 0.5) & (high >= 0.5), 0.5, (low + high) / 2)
    return float(cuts[np.argmin(np.abs(cuts - 0.5))])


def _common_cut(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The single threshold of highest macro-F1 among 200 quantiles of the scores and .5."""
    candidates = np.append(np.quantile(probabilities, np.linspace(0, 1, 201)[1:]), 0.5)
    total = np.zeros(len(candidates))
    for scores, gold in zip(probabilities.T, labels.T, strict=True):
        chosen = len(scores) - np.searchsorted(np.sort(scores), candidates)
        hits = gold.sum() - np.searchsorted(np.sort(scores[gold == 1]), candidates)
        total += 2 * hits / np.maximum(chosen + gold.sum(), 1)
    best = np.flatnonzero(total >= total.max() - 1e-12)
    return float(candidates[best[np.argmin(np.abs(candidates[best] - 0.5))]])


def tune_thresholds(
    probabilities: np.ndarray, labels: np.ndarray, *, prior_positives: float = PRIOR_POSITIVES
) -> np.ndarray:
    """One threshold a label; a row is predicted positive at or above it.

    Args:
        probabilities: `(num_examples, num_labels)`.
        labels: the same shape, uint8 multi-hot; a label without positives keeps .5.
        prior_positives: strength of the pull towards the common threshold; 0 gives the exact F1 maximum.
    """
    scores = probabilities.astype(np.float64)
    positives = labels.sum(0).astype(np.float64)
    thresholds = np.full(labels.shape[1], 0.5)
    seen = np.flatnonzero(positives)
    if not len(seen):
        return thresholds
    thresholds[seen] = [_best_cut(scores[:, j], labels[:, j]) for j in seen]
    if prior_positives > 0:
        weight = positives[seen] / (positives[seen] + prior_positives)
        common = _logit(_common_cut(scores[:, seen], labels[:, seen]))
        thresholds[seen] = 1 / (1 + np.exp(-weight * _logit(thresholds[seen]) - (1 - weight) * common))
    return thresholds


def stratified_halves(labels: np.ndarray, seed: int) -> np.ndarray:
    """Which half (0 or 1) each row belongs to: every label's rows, rarest label first, are dealt evenly.

    Args:
        labels: `(num_examples, num_labels)` uint8 multi-hot; rows without labels are dealt evenly too.
    """
    rng = np.random.default_rng(seed)
    half = np.full(len(labels), -1)
    balance = np.zeros(labels.shape[1])  # rows of each label in half 1 minus those in half 0
    sizes = np.zeros(2)
    order = rng.permutation(len(labels))
    for label in [*np.argsort(labels.sum(0), kind="stable"), None]:
        rows = order if label is None else order[labels[order, label] == 1]
        for row in rows[half[rows] < 0]:
            lean = 0.0 if label is None else balance[label]
            side = int(lean < 0) if lean else int(sizes[1] < sizes[0]) if sizes[0] != sizes[1] else int(rng.integers(2))
            half[row] = side
            sizes[side] += 1
            balance += labels[row] * (1.0 if side else -1.0)
    return half


def cross_fitted_predictions(
    probabilities: np.ndarray, labels: np.ndarray, seed: int, *, prior_positives: float = PRIOR_POSITIVES
) -> np.ndarray:
    """Predicted rows, uint8, each with thresholds tuned on the half that it is not in."""
    half = stratified_halves(labels, seed)
    predicted = np.zeros(labels.shape, np.uint8)
    for side in (0, 1):
        there, here = half != side, half == side
        thresholds = tune_thresholds(probabilities[there], labels[there], prior_positives=prior_positives)
        predicted[here] = probabilities[here] >= thresholds
    return predicted
