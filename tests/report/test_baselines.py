from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from emotion_sweeps.data.corpus import Corpus, CorpusReport, Split
from emotion_sweeps.models import baseline
from emotion_sweeps.models.baseline import fit_baseline
from emotion_sweeps.report.baselines import baseline_scores, cache_path, compute
from emotion_sweeps.training.thresholds import cross_fitted_predictions

Make = Callable[..., dict[str, Any]]
Rows = Callable[..., list[Any]]
WORDS = np.array([["furious", "rage"], ["sunny", "giggle"], ["weeping", "funeral"]])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_SWEEPS_CACHE", str(tmp_path / "cache"))


def split(seed: int, num: int, multilabel: bool) -> Split:
    rng = np.random.default_rng(seed)
    single = np.eye(3, dtype=np.uint8)[rng.integers(3, size=num)]
    labels = (rng.random((num, 3)) < 0.4).astype(np.uint8) if multilabel else single
    texts = [" ".join([f"bus {rng.integers(9)}", *WORDS[row == 1, rng.integers(2)]]) for row in labels]
    wrong = rng.random(num) < 0.2  # texts that say nothing of their labels
    return Split(
        [str(i) for i in range(num)], ["the bus" if w else t for t, w in zip(texts, wrong, strict=True)], labels
    )


def corpus(multilabel: bool = True) -> Corpus:
    parts = [split(seed, num, multilabel) for seed, num in enumerate((120, 60, 60))]
    report = CorpusReport("demo", ["a", "b", "c"], {}, {}, {}, {}, [], {}, [], [])
    return Corpus(
        name="demo",
        label_names=["a", "b", "c"],
        multilabel=multilabel,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        fingerprint="a" * 64,
        report=report,
    )


class Loader:
    """Hands out a corpus and counts how often it was asked to."""

    def __init__(self, made: Corpus) -> None:
        self.made, self.calls = made, 0

    def __call__(self, config: dict[str, Any]) -> Corpus:
        self.calls += 1
        assert config["data"]["name"] == "demo"
        return self.made


@pytest.mark.parametrize("multilabel", [True, False])
def test_the_figures_are_those_of_scikit_learn_on_the_same_predictions(multilabel: bool) -> None:
    made = corpus(multilabel)
    score = compute(made, 0)
    fitted = fit_baseline(made.train.texts, made.train.labels, multilabel=multilabel, seed=0)
    probabilities, gold = fitted.predict_proba(made.validation.texts), made.validation.labels
    if multilabel:
        predicted = cross_fitted_predictions(probabilities, gold, 0)
        loss = np.mean([log_loss(gold[:, j], probabilities[:, j], labels=[0, 1]) for j in range(3)])
    else:
        predicted = np.eye(3)[probabilities.argmax(1)]
        loss = log_loss(gold.argmax(1), probabilities, labels=[0, 1, 2])
    assert score.validation["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    assert score.validation["loss"] == pytest.approx(loss, rel=1e-4)
    assert score.test is not None and 0.3 < score.test["macro_f1"] < 1 and score.num_train == 120


def test_it_is_computed_once_a_fingerprint(make_result: Make, rows_of: Rows) -> None:
    loader = Loader(corpus())
    rows = rows_of(make_result("a"), make_result("b"))
    first, missing = baseline_scores(rows, loader)
    again, _ = baseline_scores(rows, loader)
    assert loader.calls == 1 and missing == [] and again == first and len(first) == 1
    content = json.loads(cache_path("a" * 64, 0).read_text())  # JSON, so nothing in it can execute
    assert content["validation"] == first[0].validation


@pytest.mark.parametrize("spoilt", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 0}'])
def test_a_spoilt_cache_is_computed_again(spoilt: bytes, make_result: Make, rows_of: Rows) -> None:
    loader, rows = Loader(corpus()), rows_of(make_result("a"))
    first, _ = baseline_scores(rows, loader)
    cache_path("a" * 64, 0).write_bytes(spoilt)
    again, _ = baseline_scores(rows, loader)
    assert loader.calls == 2 and again[0].validation == first[0].validation


def test_a_cache_of_another_version_is_computed_again(
    make_result: Make, rows_of: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, rows = Loader(corpus()), rows_of(make_result("a"))
    baseline_scores(rows, loader)
    monkeypatch.setattr(baseline, "VERSION", baseline.VERSION + 1)
    baseline_scores(rows, loader)
    assert loader.calls == 2


def test_a_corpus_that_changed_gives_no_row_and_the_reason(make_result: Make, rows_of: Rows) -> None:
    loader = Loader(replace(corpus(), fingerprint="f" * 64))
    scores, (reason,) = baseline_scores(rows_of(make_result("a")), loader)
    assert scores == [] and "the data has changed since the run" in reason
    assert not cache_path("a" * 64, 0).exists() and not cache_path("f" * 64, 0).exists()


def test_a_corpus_that_cannot_be_read_gives_no_row_and_the_reason(make_result: Make, rows_of: Rows) -> None:
    def gone(config: dict[str, Any]) -> Corpus:
        raise FileNotFoundError("posts.tsv\nis gone")

    scores, (reason,) = baseline_scores(rows_of(make_result("a")), gone)
    assert scores == [] and reason == "No TF-IDF + logistic regression row for demo of a: posts.tsv is gone"


@pytest.mark.parametrize("fingerprint", [None, "", "../../../etc/passwd", "A" * 64, "a" * 63, 7])
def test_a_fingerprint_that_is_none_never_becomes_a_path(fingerprint: object, make_result: Make, rows_of: Rows) -> None:
    loader = Loader(corpus())
    scores, (reason,) = baseline_scores(rows_of(make_result("a", data={"fingerprint": fingerprint})), loader)
    assert scores == [] and loader.calls == 0 and "no data fingerprint" in reason


def test_failed_and_pruned_runs_ask_for_no_baseline(make_result: Make, make_failure: Make, rows_of: Rows) -> None:
    loader = Loader(corpus())
    assert baseline_scores(rows_of(make_failure("a"), make_result("b", status="pruned")), loader) == ([], [])
    assert loader.calls == 0
