"""What a worker needs to know, in one picklable value, and the worker made from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from optuna.trial import FrozenTrial

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps.composer import Composer
from emotion_sweeps.sweeps.jobs import JobPolicy, JobRunner, LocalJobs
from emotion_sweeps.sweeps.keep import delete_checkpoints, delete_weights, losers
from emotion_sweeps.sweeps.pruning import Pruner, make_pruner
from emotion_sweeps.sweeps.sampling import Proposer, load_hook
from emotion_sweeps.sweeps.search import Search
from emotion_sweeps.sweeps.source import Claim, Outcome
from emotion_sweeps.sweeps.space import Space
from emotion_sweeps.sweeps.storage import OpenStorage, load_study, open_storage
from emotion_sweeps.sweeps.study_source import StudySource
from emotion_sweeps.sweeps.worker import sigterm_as_exception, work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrunerSpec:
    """How the pruner is made."""

    name: str
    reduction_factor: int
    min_resource: int | None
    direction: str
    max_resource: int | None

    def build(self) -> Pruner | None:
        """The pruner, None for `none`: then no report is ever judged."""
        if self.name == "none":
            return None
        return make_pruner(
            self.name,
            reduction_factor=self.reduction_factor,
            min_resource=self.min_resource,
            direction=self.direction,
            max_resource=self.max_resource,
        )


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that a worker in another process needs."""

    context: HydraContext
    config: DictConfig
    task: TaskFunction
    url: str
    study_name: str
    sweep_dir: Path
    search: Search
    space: Space
    sampler: Mapping[str, Any]
    pruner: PrunerSpec
    policy: JobPolicy
    keep: str = "best"
    keep_top_k: int = 3
    warm: tuple[FrozenTrial, ...] = field(default=())
    hook: str | None = None


def is_packed(config: DictConfig) -> bool:
    """Whether trials are trained in packs (`hydra/launcher=packed`): the worker has several slots then."""
    return "packed_launcher" in str(config.hydra.launcher._target_)


def reopen(spec: WorkerSpec) -> OpenStorage:
    """Open the study's storage in this process."""
    return open_storage(spec.url, spec.sweep_dir, spec.study_name)


def build_source(spec: WorkerSpec, opened: OpenStorage, composer: Composer) -> StudySource:
    """The source over the study of `spec`."""
    study = load_study(opened, spec.study_name)
    if study is None:
        raise UserError(f"study {spec.study_name} is gone from {opened.shown}")
    proposer = None
    if spec.search.cells is None:
        hook = load_hook(spec.hook, spec.config)
        proposer = Proposer(study, spec.space, spec.sampler, composer.identity, spec.warm, hook)
    distributions = {p.name: p.distribution for p in spec.space.params}
    return StudySource(study, opened, spec.search, spec.pruner.build(), composer.identity, distributions, proposer)


def run_worker(spec: WorkerSpec, opened: OpenStorage | None = None, composer: Composer | None = None) -> None:
    """Work in this process until the study has no trial left: one trial at a time, or in packs."""
    if is_packed(spec.config):
        from emotion_sweeps.sweeps.packing_worker import run_packed

        run_packed(spec, opened, composer)
        return
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    composer = composer or Composer(spec.context, spec.config)
    source = build_source(spec, opened or reopen(spec), composer)
    jobs = LocalJobs(spec.context, spec.config, spec.task, spec.sweep_dir, composer)
    runner = JobRunner(jobs, spec.sweep_dir, spec.policy, composer)
    with sigterm_as_exception():
        work(source, runner.run, lease_s=spec.search.lease_s, on_end=AfterTrial(spec, source))


class AfterTrial:
    """Tells how a trial ended and clears up what its study does not keep."""

    def __init__(self, spec: WorkerSpec, source: StudySource) -> None:
        self._spec, self._source = spec, source
        self._cleared: set[int] = set()  # of weights
        self._ended: set[int] = set()  # cleared of checkpoints

    def __call__(self, claim: Claim, outcome: Outcome) -> None:
        """After each trial."""
        log.info("trial %d: %s%s", claim.number, _line(claim, self._spec), _ending(outcome, self._spec))
        self.clear()

    def clear(self) -> None:
        """Delete the weights of trials that others beat, and the checkpoints of all that are finished."""
        trials, spec = self._source.trials(), self._spec
        beaten = set(losers(trials, self._source.study.directions, spec.keep, spec.keep_top_k)) - self._cleared
        delete_weights(spec.sweep_dir, sorted(beaten))
        ended = {t.number for t in trials if t.state.is_finished()} - self._ended
        delete_checkpoints(spec.sweep_dir, sorted(ended))
        self._cleared |= beaten
        self._ended |= ended


def _line(claim: Claim, spec: WorkerSpec) -> str:
    return " ".join(o for o in claim.overrides if o not in spec.space.fixed) or "the base config"


def _ending(outcome: Outcome, spec: WorkerSpec) -> str:
    if outcome.error_class:
        return f" -> {outcome.status}: {outcome.error_class}: {outcome.error_message}"
    values = zip(spec.policy.objectives.metrics, outcome.values or (), strict=False)
    return " ".join([f" -> {outcome.status}", *(f"{name} {value:.6g}" for name, value in values)])
