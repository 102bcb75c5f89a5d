"""The one seam between a study and whoever trains: claim a trial, report, ask, renew the lease, finish.

A worker asks for trials and never for batches, so a free slot never waits. The solo worker (`worker.py`) has one slot;
an engine with several slots, or a launcher's blocking list of jobs, consumes the same protocol. `StudySource`
(`study_source.py`) is the implementation over a study, `ListSource` the one over a fixed list.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from emotion_sweeps.sweeps.pruning import Decision

Status = Literal["complete", "pruned", "failed", "infeasible", "paused"]


@dataclass(frozen=True)
class Claim:
    """The right, for as long as the lease is renewed, to run one trial."""

    number: int
    overrides: tuple[str, ...]
    attempt: int = 1  # of this trial, dead workers' attempts counted
    trial_id: int = -1
    replicates: Mapping[int, Sequence[float]] = field(default_factory=dict)  # finished ones: values by index
    replicate: int | None = None  # the one that runs now, where a trial has several


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, or that it pauses at a rung."""

    status: Status
    values: tuple[float, ...] | None = None  # one an objective: the best evaluation
    error_class: str | None = None
    error_message: str | None = None


class TrialSource(Protocol):
    """Hands out trials; every method may be called from several threads."""

    @property
    def name(self) -> str | None:
        """The study's name."""

    def claim(self) -> Claim | None:
        """The next trial for a free slot; None when there is none just now (`done` tells whether for good)."""

    def done(self) -> bool:
        """Whether no trial will come any more: all are finished, here and in every other worker."""

    def report(self, claim: Claim, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Keep one evaluation. A step that was reported before (by an earlier attempt) is overwritten."""

    def decide(self, claim: Claim) -> Decision:
        """Whether the trial goes on after its last report, pauses (keeping its checkpoint) or stops as pruned."""

    def replicate(self, claim: Claim, index: int, values: Sequence[float]) -> Decision:
        """Keep the result of one finished replicate; whether the trial goes on to the next one."""

    def renew(self, claim: Claim) -> bool:
        """Renew the lease; False when the trial was given to another worker, and this one must let go of it."""

    def finish(self, claim: Claim, outcome: Outcome) -> bool:
        """Tell how it ended; False when the trial had been given to another worker, so that nothing was kept."""

    def release(self, claim: Claim) -> None:
        """Give an unfinished trial back at once (an interrupted worker)."""


class ListSource:
    """A fixed list of jobs without a study, as Hydra's `Launcher.launch()` gets it. Every job once."""

    name: str | None = None

    def __init__(self, jobs: Sequence[Sequence[str]], first_number: int = 0) -> None:
        self._jobs = [Claim(first_number + i, tuple(overrides)) for i, overrides in enumerate(jobs)]
        self._next = 0
        self._lock = threading.Lock()
        self.outcomes: dict[int, Outcome] = {}

    def claim(self) -> Claim | None:
        """The next job of the list."""
        with self._lock:
            if self._next == len(self._jobs):
                return None
            self._next += 1
            return self._jobs[self._next - 1]

    def done(self) -> bool:
        """Whether every job was handed out."""
        return self._next == len(self._jobs)

    def report(self, claim: Claim, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Nobody keeps it."""

    def decide(self, claim: Claim) -> Decision:
        """A list is never pruned."""
        return Decision.GO

    def replicate(self, claim: Claim, index: int, values: Sequence[float]) -> Decision:
        """Nobody keeps it."""
        return Decision.GO

    def renew(self, claim: Claim) -> bool:
        """A list has no leases."""
        return True

    def finish(self, claim: Claim, outcome: Outcome) -> bool:
        """Keep the outcome."""
        self.outcomes[claim.number] = outcome
        return True

    def release(self, claim: Claim) -> None:
        """A list is not resumed."""


class SourceHandle:
    """The running trial's line to its source (`emotion_sweeps.handle.TrialHandle`)."""

    def __init__(self, source: TrialSource, claim: Claim) -> None:
        self._source, self._claim = source, claim
        self.number: int | None = claim.number
        self.study_name: str | None = source.name
        self.verdict = Decision.GO
        self.lost = False  # the lease went to another worker
        self.metrics: dict[str, Any] = {}  # of the last report

    @property
    def pausing(self) -> bool:
        """Whether `should_stop` meant a pause: the trial keeps its checkpoint and may be resumed in this folder."""
        return self.verdict is Decision.PAUSE

    def report(self, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Tell one evaluation."""
        self.metrics = dict(metrics)
        if not self.lost:
            self._source.report(self._claim, step, epoch, metrics)

    def should_stop(self) -> bool:
        """Whether the trial should end now, as pruned or to pause."""
        if self.lost:
            return True
        self.verdict = self._source.decide(self._claim)
        return self.verdict is not Decision.GO
