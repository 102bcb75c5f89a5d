"""From a finished trial to its outcome: predictions with the kept weights, the per-label report, the test part.

Both engines come here; `FinishedHead` and `FinishedGeneration` say what is asked of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from emotion_sweeps.training.engine import TrialPlan
from emotion_sweeps.training.evaluation import final_thresholds, validation_predictions
from emotion_sweeps.training.generation_trainer import Decoded
from emotion_sweeps.training.memory import memory_phase
from emotion_sweeps.training.metrics import (
    classification_metrics,
    direction,
    per_label_report,
    predict_labels,
    probabilities_of,
)
from emotion_sweeps.training.outcome import Outcome, Predictions
from emotion_sweeps.training.progress import PRUNED
from emotion_sweeps.training.rows import PromptRows, TextRows


class Finished(Protocol):
    """A trial that has trained and holds its kept weights."""

    plan: TrialPlan
    best_details: Any  # of the kept evaluation: logits or `Decoded`; None where that was before a resume


class FinishedHead(Finished, Protocol):
    """A finished class head."""

    validation_rows: TextRows
    multilabel: bool
    tune_thresholds: bool
    split_seed: int

    def predict_logits(self, input_ids: Sequence[list[int]]) -> np.ndarray:
        """Logits `(num_examples, num_labels)` in the order of the rows."""


class FinishedGeneration(Finished, Protocol):
    """A finished generator."""

    validation_rows: PromptRows

    def decode(self, rows: PromptRows) -> Decoded:
        """What it answers to every prompt."""

    def evaluate_rows(self, rows: PromptRows) -> tuple[dict[str, float], Decoded]:
        """Metrics and decoded answers of one split."""


def head_outcome(trainer: FinishedHead, test: TextRows | None, label_names: Sequence[str]) -> Outcome:
    """The outcome of a class head; `test` is left alone when the trial was pruned."""
    rows, multilabel, tune = trainer.validation_rows, trainer.multilabel, trainer.tune_thresholds
    with memory_phase("predict", trainer.plan.emit):
        logits = trainer.best_details
        if logits is None:  # a resumed trial whose best evaluation was before the checkpoint
            logits = trainer.predict_logits(rows.input_ids)
        predicted = validation_predictions(
            logits, rows.labels, multilabel=multilabel, tune=tune, seed=trainer.split_seed
        )
        thresholds = final_thresholds(logits, rows.labels, multilabel=multilabel, tune=tune)
        scored = None if test is None or _pruned(trainer) else _score_head(trainer, test, thresholds)
    validation = Predictions(rows.ids, predicted, probabilities_of(logits, multilabel=multilabel))
    report = per_label_report(predicted, rows.labels, label_names, thresholds)
    return _outcome(trainer, validation, report, scored, thresholds)


def _score_head(
    trainer: FinishedHead, test: TextRows, thresholds: np.ndarray | None
) -> tuple[Predictions, dict[str, float]]:
    multilabel = trainer.multilabel
    logits = trainer.predict_logits(test.input_ids)
    probabilities = probabilities_of(logits, multilabel=multilabel)
    predicted = predict_labels(probabilities, 0.5 if thresholds is None else thresholds, multilabel=multilabel)
    metrics = classification_metrics(logits, test.labels, multilabel=multilabel, predicted=predicted)
    return Predictions(test.ids, predicted, probabilities), metrics


def generation_outcome(trainer: FinishedGeneration, test: PromptRows | None, label_names: Sequence[str]) -> Outcome:
    """The outcome of label generation; `test` is left alone when the trial was pruned."""
    rows = trainer.validation_rows
    with memory_phase("predict", trainer.plan.emit):
        decoded = trainer.best_details if trainer.best_details is not None else trainer.decode(rows)
        scored = None
        if test is not None and not _pruned(trainer):
            metrics, answers = trainer.evaluate_rows(test)
            scored = _decoded(test, answers), metrics
    report = per_label_report(decoded.labels, rows.labels, label_names)
    return _outcome(trainer, _decoded(rows, decoded), report, scored, None)


def _decoded(rows: PromptRows, decoded: Decoded) -> Predictions:
    return Predictions(rows.ids, decoded.labels, texts=decoded.texts, valid=decoded.valid)


def _pruned(trainer: Finished) -> bool:
    return trainer.plan.progress.status == PRUNED


def _outcome(
    trainer: Finished,
    validation: Predictions,
    report: list[dict[str, Any]],
    scored: tuple[Predictions, dict[str, float]] | None,
    thresholds: np.ndarray | None,
) -> Outcome:
    progress = trainer.plan.progress
    metric = progress.selection_metric
    selection = {"metric": metric, "direction": direction(metric), **progress.best[metric]}
    return Outcome(
        status=progress.status,
        best=progress.best,
        selection=selection,
        kept=progress.kept,
        final=progress.evaluations[-1],
        evaluations=progress.evaluations,
        per_label=report,
        thresholds=None if thresholds is None else [float(value) for value in thresholds],
        validation=validation,
        test=None if scored is None else scored[0],
        test_metrics=None if scored is None else scored[1],
        num_steps=progress.evaluations[-1]["step"],
        train_time_s=progress.elapsed_s - progress.evaluate_s,
        evaluate_time_s=progress.evaluate_s,
        memory=trainer.plan.memory,
    )
