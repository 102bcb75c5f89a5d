from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest

from emotion_sweeps import notices
from emotion_sweeps.tracking.jsonl import JsonlTracker, read_records
from emotion_sweeps.tracking.tracker import RunInfo


def run_info(folder: Path) -> RunInfo:
    return RunInfo(name="exp0", group=None, run_dir=folder, run_id="a" * 16)


def write(folder: Path, *records: dict[str, object]) -> None:
    tracker = JsonlTracker()
    tracker.start(run_info(folder))
    for record in records:
        tracker.log(record)
    tracker.finish("complete", {})


def test_one_strict_json_object_a_line_readable_while_the_run_goes_on(tmp_path: Path) -> None:
    tracker = JsonlTracker()
    tracker.start(run_info(tmp_path / "new"))
    tracker.log({"kind": "train", "loss": math.nan, "text": "line\nbreak \u2028 ü"})
    lines = (tmp_path / "new" / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
    tracker.finish("failed", {})
    assert len(lines) == 2 and lines[1] == ""
    assert json.loads(lines[0], parse_constant=pytest.fail) == {
        "kind": "train",
        "loss": None,
        "text": "line\nbreak \u2028 ü",
    }


@pytest.mark.parametrize("cut", range(1, 12))
def test_resume_drops_a_torn_last_line_with_a_notice_wherever_it_was_cut(
    cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notices, "_said", set())
    write(tmp_path, {"step": 1}, {"step": 222})
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with caplog.at_level(logging.WARNING, "emotion_sweeps"):
        write(tmp_path, {"step": 3})
    records, bad = read_records(path)
    kept = [{"step": 1}] if cut > 1 else [{"step": 1}, {"step": 222}]  # cut=1 takes the newline alone
    assert records == [*kept, {"step": 3}] and bad == 0
    # cut=12 would take the whole record: nothing torn, nothing to say
    assert ("torn" in caplog.text) == (1 < cut < len(b'{"step": 222}\n'))


def test_resume_drops_zero_bytes_that_a_power_cut_left(tmp_path: Path) -> None:
    write(tmp_path, {"step": 1})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b"\0" * 40 + b"\n" + b"\xff\xfe")
    write(tmp_path, {"step": 2})
    assert read_records(path) == ([{"step": 1}, {"step": 2}], 0)


def test_resume_keeps_whole_files_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, {"step": 1})
    write(tmp_path, {"step": 2})
    write(tmp_path)
    assert read_records(tmp_path / "metrics.jsonl") == ([{"step": 1}, {"step": 2}], 0)


def test_read_records_counts_foreign_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n[1]\nnot json\n\n{"step": 2')
    assert read_records(path) == ([{"step": 1}], 3)
