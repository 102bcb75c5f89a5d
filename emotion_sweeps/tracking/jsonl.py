"""metrics.jsonl, the run's own account of itself: one strict JSON object a line, flushed as it comes.

A killed process can leave half a line; a resumed run cuts it off, says so and appends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from emotion_sweeps.notices import notice_once
from emotion_sweeps.paths import METRICS_FILE
from emotion_sweeps.tracking.records import Record, jsonl_safe
from emotion_sweeps.tracking.tracker import RunInfo


class JsonlTracker:
    """Writes every record to metrics.jsonl in the run folder."""

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def start(self, run: RunInfo) -> None:
        """Open the file for appending, whole lines only."""
        run.run_dir.mkdir(parents=True, exist_ok=True)
        path = run.run_dir / METRICS_FILE
        if path.is_file():
            drop_torn_tail(path)
        self._file = path.open("a", encoding="utf-8")

    def log(self, record: Record) -> None:
        """Append one line."""
        if self._file is not None:
            self._file.write(json.dumps(jsonl_safe(record), ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Close the file; status and summary stand in result.json."""
        if self._file is not None:
            self._file.close()
            self._file = None


def drop_torn_tail(path: Path) -> None:
    """Cut off what stands after the last whole record, with a notice."""
    content = path.read_bytes()
    kept = content
    while kept and not _ends_whole(kept):
        kept = kept[: kept.rstrip(b"\n").rfind(b"\n") + 1]
    if kept and not kept.endswith(b"\n"):  # a whole record that lost only its newline
        with path.open("ab") as file:
            file.write(b"\n")
    elif len(kept) < len(content):
        notice_once(f"{path}: the last record was torn ({len(content) - len(kept)} bytes) and is dropped")
        with path.open("r+b") as file:
            file.truncate(len(kept))


def _ends_whole(content: bytes) -> bool:
    return _parse(content.rstrip(b"\n").rsplit(b"\n", 1)[-1]) is not None


def read_records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of a metrics.jsonl, and the number of lines that are none (torn or foreign)."""
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    parsed = [_parse(line) for line in lines]
    records = [record for record in parsed if record is not None]
    return records, len(lines) - len(records)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:  # JSONDecodeError and UnicodeDecodeError alike
        return None
    return record if isinstance(record, dict) else None
