"""One trial of a pack, from its config to its run folder: what `run_trial` does, cut into a beginning and an end."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch
from torch import Tensor

from emotion_sweeps.config.naming import trial_name
from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.handle import NullHandle, TrialHandle
from emotion_sweeps.lora.packed_model import scaling_of
from emotion_sweeps.notices import notice_once
from emotion_sweeps.paths import CHECKPOINTS_DIR
from emotion_sweeps.tracking.tracker import FAILED, PRUNED
from emotion_sweeps.training.checkpoints import load_weights, trainable_weights
from emotion_sweeps.training.losses import class_weight_from_labels, pos_weight_from_labels
from emotion_sweeps.training.memory import memory_phase
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.packed.trial import PackTrial, trial_plan
from emotion_sweeps.trial import run as alone
from emotion_sweeps.trial.artifacts import describe_device, measured, write_adapter, write_predictions
from emotion_sweeps.trial.finished import claim_checkpoints
from emotion_sweeps.trial.pack_base import GENERATION, PackBase, trial_model
from emotion_sweeps.trial.place import TrialPlace
from emotion_sweeps.trial.probabilities import add_probabilities
from emotion_sweeps.trial.result import settings_of, versions, write_result

logger = logging.getLogger("emotion_sweeps")
Value = float | dict[str, float]  # of the objective; by name where there are several


@dataclass
class PackJob:
    """One trial that is asked for: its config, its place, who wants to hear of it, and the caller's own token."""

    conf: TrainConf
    place: TrialPlace
    handle: TrialHandle = field(default_factory=NullHandle)
    token: Any = None


class OpenTrial:
    """A trial that has begun: its trackers listen, its adapter exists."""

    def __init__(self, job: PackJob, shared: PackBase) -> None:
        conf, place, handle = job.conf, job.place, job.handle
        self.job, self.shared, self._started_s = job, shared, time.perf_counter()
        number = place.number if handle.number is None else handle.number
        self.name = trial_name(conf, number, place.overrides)
        self._header = {
            "name": self.name,
            "trial_number": number,
            "started_at": datetime.now(UTC).isoformat(),
            **settings_of(conf),
            "engine": "packed",
        }
        self._memory: list[dict[str, Any]] = []
        self._trackers = alone.open_listeners(conf)
        self._emit = partial(alone.emit_record, self._trackers, handle, self._memory)
        try:
            self.trial = self._begin()
        except BaseException as error:
            self.fail(error)
            raise

    def _begin(self) -> PackTrial:
        conf, place, frozen = self.job.conf, self.job.place, self.shared.frozen
        claim_checkpoints(conf, place.run_dir / CHECKPOINTS_DIR, self.shared.corpus.fingerprint)
        with memory_phase("load", lambda record: None) as load:
            self._model = trial_model(conf, frozen)
        self._trackers.start(alone.run_info(conf, place, self.job.handle, self.name))
        self._emit({**load})
        if conf.task.sequence_packing:
            notice_once("task.sequence_packing: trials in a pack are padded instead; their losses are the same")
        settings = alone.engine_settings(
            conf, frozen.hardware, self._emit, self.job.handle, place.run_dir / CHECKPOINTS_DIR
        )
        task: Any = self.shared.task
        head_rate = None if conf.task.name == GENERATION else conf.lora.effective_head_learning_rate
        return PackTrial(
            plan=trial_plan(task.lengths, task.units, settings, head_learning_rate=head_rate),
            seed=conf.seed,
            rank=conf.lora.r,
            scaling=scaling_of(conf.lora.r, conf.lora.effective_alpha, conf.lora.use_rslora),
            dropout=conf.lora.dropout,
            weights=trainable_weights(self._model),
            max_grad_norm=conf.training.max_grad_norm,
            loss_weight=self._loss_weight(),
            label_smoothing=conf.task.label_smoothing,
            focal_gamma=conf.task.focal_gamma,
            settings=settings,
            token=self,
        )

    def _loss_weight(self) -> Tensor | None:
        task, corpus = self.job.conf.task, self.shared.corpus
        if task.name == GENERATION:
            return None
        from_labels = pos_weight_from_labels if task.name == "multilabel_head" else class_weight_from_labels
        weights = from_labels(corpus.train.labels, task.weighting, task.weight_cap)
        return None if weights is None else torch.from_numpy(weights)

    def end(self, outcome: Outcome, weights: dict[str, Tensor], packed_with: int) -> Value:
        """Write the run folder; returns what the trial is worth, as `run_trial` does."""
        place = self.job.place
        load_weights(self._model, weights)
        status, summary = FAILED, dict[str, Any]()
        try:
            outcome = self._with_probabilities(outcome)
            with memory_phase("save", self._emit):
                self._write_files(outcome)
            result = {
                **measured(self.job.conf, outcome, self.shared.corpus, score_test=not place.in_sweep),
                **self._described(),
                "packed_with": packed_with,
                "wall_time_s": time.perf_counter() - self._started_s,
                "memory": self._memory,
                "peak_memory_gib": alone.peak_gib(self._memory),
                "error": None,
            }
            write_result(place.run_dir, {**self._header, **result, "versions": versions()})
            status, summary = result["status"], alone.summary_of(result)
        finally:
            self._trackers.finish(status, summary)
        if not (status == PRUNED and self.job.handle.pausing):
            shutil.rmtree(place.run_dir / CHECKPOINTS_DIR, ignore_errors=True)
        alone.say_summary(self.name, result, place.run_dir)
        return alone.value_of(result)

    def _with_probabilities(self, outcome: Outcome) -> Outcome:
        """A generator's label probabilities, where they are asked for; found one trial at a time."""
        task: Any = self.shared.task
        if self.job.conf.task.name != GENERATION:
            return outcome
        frozen = self.shared.frozen
        return add_probabilities(
            self.job.conf,
            outcome,
            self._model,
            frozen.base,
            frozen.hardware,
            self.shared.corpus,
            task.validation,
            task.test,
            self._emit,
        )

    def _write_files(self, outcome: Outcome) -> None:
        conf, folder, corpus = self.job.conf, self.job.place.run_dir, self.shared.corpus
        frozen = self.shared.frozen
        if not outcome.pruned:
            write_adapter(folder, self._model, conf, frozen.base, frozen.hardware, corpus, outcome)
        write_predictions(folder, "validation", corpus.validation, outcome.validation, corpus.label_names)
        if corpus.test is not None and outcome.test is not None:
            write_predictions(folder, "test", corpus.test, outcome.test, corpus.label_names)

    def _described(self) -> dict[str, Any]:
        hardware = self.shared.frozen.hardware
        trainable, total = self._model.get_nb_trainable_parameters()
        return {
            "trainable_parameters": trainable,
            "total_parameters": total,
            "device": describe_device(hardware.device),
            "precision": hardware.precision,
        }

    def fail(self, error: BaseException) -> None:
        """Leave a result.json that says what went wrong."""
        wall_time_s = time.perf_counter() - self._started_s
        alone.write_failure(self.job.place.run_dir, self._header, error, wall_time_s, self._memory)
        self._trackers.finish(FAILED, {})


def finished_before(job: PackJob) -> Value | None:
    """The value of the same trial where its folder holds it finished; another's finished trial is an error."""
    return alone.value_if_finished(job.conf, job.place.run_dir)
