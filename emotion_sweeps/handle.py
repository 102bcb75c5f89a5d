"""The running trial's line to whoever asked for it: report an evaluation, ask whether to stop.

A single run has nobody to ask (`NullHandle`). A sweep's worker sets its own handle around the job; the trial finds
it with `current_handle()`, because Hydra hands a task function nothing but its config. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class TrialHandle(Protocol):
    """What a trial may say to and ask of its study."""

    number: int | None  # the trial's number in its study
    study_name: str | None

    @property
    def pausing(self) -> bool:
        """Whether `should_stop` meant a pause: the trial may go on later, from its checkpoint, in the same folder."""

    def report(self, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Tell one evaluation: `step` optimizer steps done, `metrics` by the names of `training.metrics`."""

    def should_stop(self) -> bool:
        """Whether the trial should end now as pruned."""


class NullHandle:
    """Nobody listens and nobody stops the trial."""

    number: int | None = None
    study_name: str | None = None
    pausing = False

    def report(self, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Nothing to tell it to."""

    def should_stop(self) -> bool:
        """Never."""
        return False


_current: ContextVar[TrialHandle] = ContextVar("trial_handle", default=NullHandle())  # noqa: B039


def current_handle() -> TrialHandle:
    """The handle of the trial that runs in this context."""
    return _current.get()


@contextmanager
def use_handle(handle: TrialHandle) -> Iterator[None]:
    """Make `handle` the current one for the time of the block."""
    token = _current.set(handle)
    try:
        yield
    finally:
        _current.reset(token)
