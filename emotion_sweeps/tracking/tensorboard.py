"""TensorBoard as a listener: event files in the run folder's `tensorboard/` (extra: tensorboard)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from emotion_sweeps.tracking.records import Record, jsonl_safe, scalars
from emotion_sweeps.tracking.tracker import RunInfo

TENSORBOARD_DIR = "tensorboard"


class TensorboardTracker:
    """Writes every measurement as a scalar of its step, the config and the summary as text."""

    def __init__(self) -> None:
        self._writer: Any = None
        self._step = 0

    def start(self, run: RunInfo) -> None:
        """Open an event file; a resumed run adds a second one, which TensorBoard shows as the same run."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir=str(run.run_dir / TENSORBOARD_DIR))
        self._writer.add_text("config", _as_text(run.config), 0)

    def log(self, record: Record) -> None:
        """Add the record's measurements at its step; a record without one stands at the last step."""
        if self._writer is None:
            return
        step = record.get("step")
        self._step = self._step if step is None else int(step)
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, self._step)

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Write the summary and close the file."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            writer.add_text("summary", _as_text({**summary, "status": status}), self._step)
        finally:
            writer.close()


def _as_text(value: Mapping[str, Any]) -> str:
    # Four spaces make a code block in TensorBoard's markdown, so nothing in it is read as markup.
    lines = json.dumps(jsonl_safe(value), indent=2, ensure_ascii=False).splitlines()
    return "\n".join(f"    {line}" for line in lines)
