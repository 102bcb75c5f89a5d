"""The listening side of a run: a small protocol, and a fan-out that no listener can bring down.

Training emits records and knows nothing of who listens. A tracker that raises is dropped with a notice and closed;
the run goes on. `finish` reaches every tracker that was started, whatever happened before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from emotion_sweeps.notices import notice_once
from emotion_sweeps.tracking.records import Record

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class RunInfo:
    """What a run is called and where it lives."""

    name: str
    group: str | None  # the sweep that it belongs to
    run_dir: Path
    run_id: str  # the same for the same trial of the same sweep, see `run_id_for`
    job_type: str = "trial"
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)  # the whole resolved config


class Tracker(Protocol):
    """One listener of one run."""

    def start(self, run: RunInfo) -> None:
        """Open whatever the listener writes to."""

    def log(self, record: Record) -> None:
        """Take one record (see `records`)."""

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Close; `status` is complete, pruned or failed. Called once, also after a `start` that raised."""


def run_id_for(sweep: str, trial: str) -> str:
    """An id of 16 hex digits that a killed and resumed trial gets again.

    Args:
        sweep: identity of the sweep (study name, or its folder).
        trial: identity of the trial in it (number or name).
    """
    return hashlib.sha256(f"{sweep}\0{trial}".encode()).hexdigest()[:16]


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self._listening: list[Tracker] = list(trackers)

    def start(self, run: RunInfo) -> None:
        """Start every tracker; one that cannot start is dropped with a notice."""
        for tracker in list(self._listening):
            try:
                tracker.start(run)
            except Exception as error:
                self._drop(tracker, "start", error)

    def log(self, record: Record) -> None:
        """Hand a record to every tracker that still listens."""
        for tracker in list(self._listening):
            try:
                tracker.log(record)
            except Exception as error:
                self._drop(tracker, "log", error)

    def finish(self, status: str, summary: Mapping[str, Any] | None = None) -> None:
        """Close every tracker; further calls do nothing."""
        listening, self._listening = self._listening, []
        for tracker in listening:
            _close(tracker, status, summary or {})

    def _drop(self, tracker: Tracker, doing: str, error: Exception) -> None:
        self._listening.remove(tracker)
        notice_once(f"{_label(tracker)} failed to {doing} and is left out from here on: {_line(error)}")
        _close(tracker, FAILED, {})


def _close(tracker: Tracker, status: str, summary: Mapping[str, Any]) -> None:
    try:
        tracker.finish(status, summary)
    except Exception as error:
        notice_once(f"{_label(tracker)} failed to close: {_line(error)}")


def _label(tracker: Tracker) -> str:
    return f"tracking: {type(tracker).__name__}"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
