from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest

from emotion_sweeps.models.baseline import fit_baseline
from emotion_sweeps.training.metrics import label_metrics, predict_labels
from emotion_sweeps.training.thresholds import cross_fitted_predictions

GOEMOTIONS = Path(__file__).parents[3] / "shared" / "data" / "goemotions"
WORDS = {0: ["furious", "rage", "shouting"], 1: ["sunny", "delighted", "giggle"], 2: ["weeping", "funeral", "lonely"]}


def texts_of(rng: np.random.Generator, labels: np.ndarray) -> list[str]:
    """Texts that say their labels, between words that say nothing."""
    filler = ["the", "bus", "came", "late", "again", "today", "we", "talked"]
    rows = [
        [*rng.choice(filler, 4), *(w for j in np.flatnonzero(row) for w in rng.choice(WORDS[j], 2))] for row in labels
    ]
    return [" ".join(rng.permutation(row)) for row in rows]


def corpus(multilabel: bool, num: int = 240) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    single = np.eye(3, dtype=np.uint8)[rng.integers(3, size=num)]
    labels = (rng.random((num, 3)) < 0.4).astype(np.uint8) if multilabel else single
    return texts_of(rng, labels), labels


@pytest.mark.parametrize("multilabel", [True, False])
def test_it_learns_what_words_say_and_repeats_itself(multilabel: bool) -> None:
    texts, labels = corpus(multilabel)
    fitted = fit_baseline(texts[:160], labels[:160], multilabel=multilabel, seed=0)
    probabilities = fitted.predict_proba(texts[160:])
    predicted = predict_labels(probabilities, 0.5, multilabel=multilabel)
    assert label_metrics(predicted, labels[160:])["macro_f1"] > 0.9
    again = fit_baseline(texts[:160], labels[:160], multilabel=multilabel, seed=0).predict_proba(texts[160:])
    np.testing.assert_array_equal(probabilities, again)
    if not multilabel:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


@pytest.mark.parametrize("multilabel", [True, False])
def test_labels_without_a_positive_example_keep_a_small_probability(multilabel: bool) -> None:
    texts, labels = corpus(multilabel)
    wider = np.hstack([labels, np.zeros((len(labels), 1), np.uint8)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probabilities = fit_baseline(texts, wider, multilabel=multilabel, seed=0).predict_proba(texts)
    assert probabilities.shape == (len(texts), 4)
    assert np.all(probabilities[:, 3] < 0.01) and np.all(np.isfinite(probabilities))


def test_a_label_that_every_text_has_is_predicted_for_all() -> None:
    texts, labels = corpus(True)
    labels[:, 1] = 1
    assert np.all(fit_baseline(texts, labels, multilabel=True, seed=0).predict_proba(texts)[:, 1] > 0.99)


@pytest.mark.parametrize("multilabel", [True, False])
def test_texts_with_nothing_to_count_give_the_label_frequencies(multilabel: bool) -> None:
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.uint8)
    probabilities = fit_baseline(["", " ", "", "\n"], labels, multilabel=multilabel, seed=0).predict_proba(["", "x"])
    expected = [3.5 / 5, 1.5 / 5]  # add one half to every count
    np.testing.assert_allclose(probabilities, [expected, expected])


@pytest.mark.parametrize("texts", [["a b", "c d"], ["😀", "😡😡"], ["one", "two"]])
def test_corpora_of_two_short_texts_do_not_crash(texts: list[str]) -> None:
    labels = np.eye(2, dtype=np.uint8)
    for multilabel in (True, False):
        fitted = fit_baseline(texts, labels, multilabel=multilabel, seed=0)
        assert fitted.predict_proba(texts).shape == (2, 2)
        assert fitted.predict_proba([]).shape == (0, 2)


def test_one_class_alone_is_predicted() -> None:
    labels = np.array([[0, 1], [0, 1]], np.uint8)
    probabilities = fit_baseline(["happy day", "happy night"], labels, multilabel=False, seed=0).predict_proba(["x"])
    assert probabilities[0, 1] > probabilities[0, 0] and probabilities.sum() == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.skipif(not GOEMOTIONS.is_dir(), reason=f"GoEmotions is not at {GOEMOTIONS}")
def test_goemotions_reaches_the_reference_score() -> None:
    """Reference: macro-F1 .436 with word features on 12,000 texts, thresholds tuned on the other half of dev."""
    train, labels = _goemotions("train.tsv")
    validation, gold = _goemotions("dev.tsv")
    drawn = np.random.default_rng(0).permutation(len(train))[:12_000]
    fitted = fit_baseline([train[i] for i in drawn], labels[drawn], multilabel=True, seed=0)
    predicted = cross_fitted_predictions(fitted.predict_proba(validation), gold, 0)
    assert label_metrics(predicted, gold)["macro_f1"] == pytest.approx(0.457, abs=0.02)


def _goemotions(name: str) -> tuple[list[str], np.ndarray]:
    with (GOEMOTIONS / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    labels = np.zeros((len(rows), 28), np.uint8)
    for i, row in enumerate(rows):
        labels[i, [int(j) for j in row[1].split(",")]] = 1
    return [row[0] for row in rows], labels
