"""The shipped defaults learn: MiniLM with LoRA beats TF-IDF clearly, on the bundled corpus and on real text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from emotion_sweeps.config.compose import compose
from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.models.baseline import fit_baseline
from emotion_sweeps.training.thresholds import tune_thresholds
from emotion_sweeps.trial.components import corpus_of
from emotion_sweeps.trial.place import TrialPlace
from emotion_sweeps.trial.run import run_trial

GOEMOTIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "goemotions"
QUIET = ["tracking=jsonl", "hardware.num_threads=2"]


def scored_macro_f1(folder: Path, conf: TrainConf) -> float:
    """Test macro-F1 of a finished run, scored here from its predictions, by scikit-learn."""
    rows = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    names = corpus_of(conf.data).label_names
    gold, predicted = (np.array([[n in row[key] for n in names] for row in rows]) for key in ("gold", "predicted"))
    return float(f1_score(gold, predicted, average="macro", zero_division=0))


def baseline_macro_f1(conf: TrainConf) -> float:
    """TF-IDF on the same parts: thresholds tuned on validation, scored on test."""
    corpus = corpus_of(conf.data)
    assert corpus.test is not None
    baseline = fit_baseline(corpus.train.texts, corpus.train.labels, multilabel=True, seed=0)
    thresholds = tune_thresholds(baseline.predict_proba(corpus.validation.texts), corpus.validation.labels)
    predicted = baseline.predict_proba(corpus.test.texts) >= thresholds
    return float(f1_score(corpus.test.labels, predicted, average="macro", zero_division=0))


@pytest.mark.slow
def test_minilm_beats_tfidf_on_the_demo_corpus(tmp_path: Path) -> None:
    conf = compose(QUIET)
    run_trial(conf, TrialPlace(tmp_path))
    baseline = baseline_macro_f1(conf)
    assert 0.25 < baseline < 0.75
    assert scored_macro_f1(tmp_path, conf) >= baseline + 0.05


@pytest.mark.slow
def test_minilm_learns_goemotions(tmp_path: Path) -> None:
    if not GOEMOTIONS.is_dir():
        pytest.skip("GoEmotions is not beside the project (../shared/data/goemotions)")
    data = [f"data.train={GOEMOTIONS / 'train.tsv'}", f"data.test={GOEMOTIONS / 'dev.tsv'}"]
    labels = f"data.labels={GOEMOTIONS / 'labels.txt'}"
    conf = compose(["data=files", *data, labels, "data.max_samples=12000", "training.epochs=2", *QUIET])
    run_trial(conf, TrialPlace(tmp_path))
    assert scored_macro_f1(tmp_path, conf) >= 0.47
