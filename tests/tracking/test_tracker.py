from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from emotion_sweeps import notices
from emotion_sweeps.tracking.tracker import RunInfo, Trackers, run_id_for


class Spy:
    """Notes what it is told; raises where it was told to."""

    def __init__(self, raises: str = "") -> None:
        self.raises, self.told = raises, []  # type: ignore[var-annotated]

    def _note(self, what: str, value: object) -> None:
        self.told.append((what, value))
        if what == self.raises:
            raise OSError("disk\nis full")

    def start(self, run: RunInfo) -> None:
        self._note("start", run.name)

    def log(self, record: Mapping[str, Any]) -> None:
        self._note("log", record["step"])

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        self._note("finish", status)


RUN = RunInfo(name="exp0", group="sweep", run_dir=Path("."), run_id="0" * 16)
WHOLE = [("start", "exp0"), ("log", 1), ("log", 2), ("finish", "complete")]


def drive(trackers: Trackers) -> None:
    trackers.start(RUN)
    trackers.log({"step": 1})
    trackers.log({"step": 2})
    trackers.finish("complete", {})


@pytest.mark.parametrize(
    ("raises", "told"),
    [
        ("start", [("start", "exp0"), ("finish", "failed")]),
        ("log", [("start", "exp0"), ("log", 1), ("finish", "failed")]),
        ("finish", WHOLE),
    ],
)
def test_a_listener_that_raises_is_dropped_and_closed_and_the_others_hear_all(
    raises: str, told: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notices, "_said", set())
    before, broken, after = Spy(), Spy(raises), Spy()
    with caplog.at_level(logging.WARNING, "emotion_sweeps"):
        drive(Trackers([before, broken, after]))
    assert before.told == after.told == WHOLE
    assert broken.told == told
    assert [r.getMessage() for r in caplog.records if "Spy" in r.getMessage() and "disk is full" in r.getMessage()]


def test_finish_reaches_everybody_once() -> None:
    spies = [Spy("finish"), Spy()]
    trackers = Trackers(spies)
    drive(trackers)
    trackers.finish("failed", {})
    assert all(spy.told == WHOLE for spy in spies)


def test_an_interrupt_is_not_swallowed() -> None:
    class Interrupting(Spy):
        def log(self, record: Mapping[str, Any]) -> None:
            raise KeyboardInterrupt

    trackers = Trackers([Interrupting()])
    with pytest.raises(KeyboardInterrupt):
        trackers.log({"step": 1})


def test_run_ids_repeat_for_the_same_trial_and_differ_otherwise() -> None:
    ids = {run_id_for(sweep, trial) for sweep in ("s", "s2", "ab") for trial in ("0", "1", "b", "")}
    assert len(ids) == 12 and all(len(i) == 16 and i.isalnum() for i in ids)
    assert run_id_for("s", "0") == run_id_for("s", "0")
    assert run_id_for("ab", "c") != run_id_for("a", "bc")
