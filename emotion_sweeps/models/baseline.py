"""The baseline that every board shows: TF-IDF over words and characters, one logistic regression.

Word 1-2-grams beside character 2-4-grams inside words, sublinear counts. Multi-label data gets one binary regression a
label without class weights (C=2): its thresholds are tuned afterwards, and unweighted probabilities give a validation
loss that can be shown. Single-label data gets one multinomial regression with balanced class weights (C=4), because
nothing is tuned afterwards there. Measured on GoEmotions (12,000 texts; score on dev, thresholds cross-fitted by
training.thresholds; below, its rows with one label):

    multi-label                   macro-F1 micro-F1 NLL     single-label                  macro-F1 accuracy NLL
    words                     C=4     .414     .504 .108    words                     C=4     .306     .541 1.76
    words, balanced           C=4     .430     .506 .139    words, balanced           C=4     .414     .464 2.09
    words + characters        C=2     .457     .538 .101    words + characters        C=4     .351     .557 1.61
    words + chars, balanced   C=1     .459     .533 .158    words + chars, balanced   C=4     .439     .507 1.78

A baseline of words alone (.436 with unshrunk thresholds) would be beaten too easily. On 1,000 posts of the demo corpus
all of the multi-label rows lie within .40 +- .01. Cost on one core: 9 s for 12,000 texts and 28 labels; demo: 1 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 1  # raised when a change here moves the scores: cached figures of another version are not used
_BINARY_C, _MULTINOMIAL_C = 2.0, 4.0  # inverse strength of the penalty
_MAX_CHARACTER_GRAMS = 100_000


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline."""

    _features: Any  # None: the training texts hold nothing to count
    _models: list[Any]  # multi-label: one a label; single-label: one; None: the labels never vary
    _prior: NDArray[np.float64]  # (num_labels,) smoothed label frequencies
    _multilabel: bool

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities `(len(texts), num_labels)`; single-label rows add up to 1."""
        probabilities = np.tile(self._prior, (len(texts), 1))
        if self._features is None or not len(texts):
            return probabilities
        features = self._features.transform(texts)
        if self._multilabel:
            for label, model in enumerate(self._models):
                if model is not None:
                    probabilities[:, label] = model.predict_proba(features)[:, 1]
        elif self._models[0] is not None:
            probabilities[:] = 0.0
            probabilities[:, self._models[0].classes_] = self._models[0].predict_proba(features)
        return probabilities


def fit_baseline(
    train_texts: Sequence[str], train_labels: NDArray[np.uint8], *, multilabel: bool, seed: int
) -> Baseline:
    """Fit the baseline; labels that every text or no text has are predicted by their frequency.

    Args:
        train_labels: `(num_examples, num_labels)` multi-hot.
        multilabel: False when every row has exactly one label.
        seed: of the solver's coordinate order.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    counts = train_labels.sum(axis=0, dtype=np.float64)
    if multilabel:
        prior = (counts + 0.5) / (len(train_labels) + 1)
    else:
        prior = (counts + 0.5) / (counts + 0.5).sum()
    vectorizer, features = _fit_features(train_texts)
    if features is None:
        return Baseline(None, [], prior, multilabel)
    # The solvers take small steps over sparse rows: BLAS threads gain nothing, and cost much on a busy machine.
    with threadpool_limits(1):
        if multilabel:
            models = [_fit_binary(features, column, seed) for column in train_labels.T]
        else:
            models = [_fit_multinomial(features, train_labels.argmax(axis=1), seed)]
    return Baseline(vectorizer, models, prior, multilabel)


def _fit_features(texts: Sequence[str]) -> tuple[Any, Any]:
    """The fitted vectorizer and its training matrix; rare n-grams count only where nothing else is there."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    characters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=3, max_features=_MAX_CHARACTER_GRAMS
    )
    every_character = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    for vectorizer in (make_union(words, characters), every_character):
        try:
            return vectorizer, vectorizer.fit_transform(texts)
        except ValueError:  # scikit-learn's "empty vocabulary" and "no terms remain"
            continue
    return None, None


def _fit_binary(features: Any, positive: NDArray[np.uint8], seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    if positive.min() == positive.max():
        return None
    return LogisticRegression(C=_BINARY_C, solver="liblinear", random_state=seed).fit(features, positive)


def _fit_multinomial(features: Any, classes: NDArray[np.int64], seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    if classes.min() == classes.max():
        return None
    return LogisticRegression(C=_MULTINOMIAL_C, class_weight="balanced", max_iter=300, random_state=seed).fit(
        features, classes
    )
