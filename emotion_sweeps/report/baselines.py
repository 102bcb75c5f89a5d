"""The TF-IDF row: fitted once a corpus, scored like a trial, its figures cached as JSON.

The corpus is read again from the config of one of its runs and must have the fingerprint that the runs trained on;
otherwise the row would compare scores on different texts, and is left out with the reason.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_sweeps.data.corpus import Corpus, Split
from emotion_sweeps.models import baseline
from emotion_sweeps.paths import cache_dir
from emotion_sweeps.report.bootstrap import macro_f1_interval
from emotion_sweeps.report.results import COMPLETE, RunRow
from emotion_sweeps.training.metrics import classification_metrics, predict_labels
from emotion_sweeps.training.thresholds import cross_fitted_predictions, tune_thresholds

logger = logging.getLogger("emotion_sweeps")
NAME = "TF-IDF + logistic regression"
LoadCorpus = Callable[[dict[str, Any]], Corpus]
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_CERTAIN = 1e-7  # probabilities are kept this far from 0 and 1, as log-odds need it


@dataclass(frozen=True)
class BaselineScore:
    """What the baseline reaches on one corpus; `validation` and `test` are metrics by name."""

    version: int
    fingerprint: str
    data_name: str
    num_train: int
    fit_time_s: float
    validation: dict[str, float]
    test: dict[str, float] | None
    test_interval: tuple[float, float] | None = None  # of macro-F1, 95 %, over resampled texts


def baseline_scores(runs: Sequence[RunRow], load_corpus_for: LoadCorpus) -> tuple[list[BaselineScore], list[str]]:
    """One score for each corpus that a complete run trained on, and the reasons where there is none."""
    scores: list[BaselineScore] = []
    missing: list[str] = []
    for run in _one_run_a_corpus(runs):
        try:
            scores.append(baseline_score(run, load_corpus_for))
        except Exception as error:  # the board stands without the row, and says why it is not there
            reason = " ".join(f"{error}".split()) or type(error).__name__
            missing.append(f"No {NAME} row for {run.data_name or 'the data'} of {run.name}: {reason}")
    return scores, missing


def _one_run_a_corpus(runs: Sequence[RunRow]) -> list[RunRow]:
    return list({(run.fingerprint, _split_seed(run)): run for run in runs if run.status == COMPLETE}.values())


def _split_seed(run: RunRow) -> int:
    data = run.config.get("data")
    seed = data.get("split_seed") if isinstance(data, Mapping) else None
    return seed if isinstance(seed, int) else 0


def baseline_score(run: RunRow, load_corpus_for: LoadCorpus) -> BaselineScore:
    """The score for the corpus of `run`, from the cache or computed and cached.

    Raises:
        ValueError: the run does not say what it trained on, or the corpus has changed since.
    """
    if run.fingerprint is None or not _FINGERPRINT.fullmatch(run.fingerprint):
        raise ValueError("its result.json holds no data fingerprint")
    path = cache_path(run.fingerprint, _split_seed(run))
    cached = _read(path, run.fingerprint)
    if cached is not None:
        return cached
    corpus = load_corpus_for(dict(run.config))
    if corpus.fingerprint != run.fingerprint:
        raise ValueError("the data has changed since the run, so the two cannot be compared")
    score = compute(corpus, _split_seed(run))
    _write(path, score)
    return score


def cache_path(fingerprint: str, split_seed: int) -> Path:
    """Where a corpus's score is kept; the seed decides the halves between which thresholds are crossed."""
    suffix = f"_seed{split_seed}" if split_seed else ""
    return cache_dir() / "baselines" / f"{fingerprint}{suffix}.json"


def compute(corpus: Corpus, split_seed: int) -> BaselineScore:
    """Fit on the training part, score validation (thresholds cross-fitted, as for a trial) and a labelled test part."""
    logger.info(f"{NAME}: fitting on {len(corpus.train):,} texts of {corpus.name} (once, then cached)")
    started = time.perf_counter()
    fitted = baseline.fit_baseline(
        corpus.train.texts, corpus.train.labels, multilabel=corpus.multilabel, seed=split_seed
    )
    fit_time_s = time.perf_counter() - started
    probabilities, gold = fitted.predict_proba(corpus.validation.texts), corpus.validation.labels
    crossed = cross_fitted_predictions(probabilities, gold, split_seed) if corpus.multilabel else None
    thresholds = tune_thresholds(probabilities, gold) if corpus.multilabel else np.array(0.5)
    test, interval = _on_test(fitted, corpus.test, thresholds, corpus.multilabel)
    return BaselineScore(
        version=baseline.VERSION,
        fingerprint=corpus.fingerprint,
        data_name=corpus.name,
        num_train=len(corpus.train),
        fit_time_s=fit_time_s,
        validation=_metrics(probabilities, gold, crossed, corpus.multilabel),
        test=test,
        test_interval=interval,
    )


def _on_test(
    fitted: baseline.Baseline, test: Split | None, thresholds: NDArray[np.float64], multilabel: bool
) -> tuple[dict[str, float] | None, tuple[float, float] | None]:
    """Metrics on a labelled test part, and the interval of macro-F1."""
    if test is None or not test.labelled or not len(test):
        return None, None
    probabilities = fitted.predict_proba(test.texts)
    predicted = predict_labels(probabilities, thresholds, multilabel=multilabel)
    return _metrics(probabilities, test.labels, predicted, multilabel), macro_f1_interval(predicted, test.labels)


def _metrics(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.uint8],
    predicted: NDArray[np.uint8] | None,
    multilabel: bool,
) -> dict[str, float]:
    clipped = np.clip(probabilities, _CERTAIN, 1 - _CERTAIN)
    logits = np.log(clipped) - np.log1p(-clipped) if multilabel else np.log(clipped)
    return classification_metrics(logits, labels, multilabel=multilabel, predicted=predicted)


def _read(path: Path, fingerprint: str) -> BaselineScore | None:
    """A cached score of this version, or None: a file that cannot be used is computed again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("test_interval") is not None:
            low, high = content["test_interval"]
            content["test_interval"] = (float(low), float(high))
        score = BaselineScore(**content)
        usable = score.version == baseline.VERSION and score.fingerprint == fingerprint
        return score if usable and isinstance(score.validation["macro_f1"], float) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(path: Path, score: BaselineScore) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(asdict(score), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
