"""The live table of a pack: trial, step, loss, best, state. Where there is no terminal, a line for each evaluation.

Numbers are those of the last evaluation; nothing waits for the device to show them, and the table is drawn at most
twice a second.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from emotion_sweeps.training.packed.trial import Slot

_REDRAW_S = 0.5
logger = logging.getLogger("emotion_sweeps")


class PackTable:
    """Shows who is in the slots."""

    def __init__(self) -> None:
        self._live: Any = None
        self._ended = 0
        self._drawn_s = 0.0
        self._told: dict[str, int] = {}  # evaluations of each trial that were shown

    def tick(self, members: list[Slot]) -> None:
        """After each optimizer step."""
        if not sys.stderr.isatty():
            self._say(members)
            return
        if time.perf_counter() - self._drawn_s < _REDRAW_S:
            return
        self._drawn_s = time.perf_counter()
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(self._rows(members), refresh=True)

    def _say(self, members: list[Slot]) -> None:
        for slot in members:
            name, progress = _name(slot), slot.plan.progress
            if len(progress.evaluations) > self._told.get(name, 0):
                self._told[name] = len(progress.evaluations)
                last, best = progress.evaluations[-1], progress.best["loss"]
                logger.info(
                    f"{name}: step {last['step']}/{progress.num_steps}, validation loss "
                    f"{last['metrics']['loss']:.4f} (best {best['value']:.4f} at {best['step']})"
                )

    def _rows(self, members: list[Slot]) -> Any:
        from rich.table import Table

        table = Table(title=f"{len(members)} trials at once, {self._ended} ended")
        for column in ("trial", "rank", "step", "validation loss", "best", "state"):
            table.add_column(column, justify="left" if column == "trial" else "right")
        for slot in members:
            progress = slot.plan.progress
            last = f"{progress.evaluations[-1]['metrics']['loss']:.4f}" if progress.evaluations else "-"
            best = progress.best.get(progress.selection_metric)
            shown = "-" if best is None else f"{best['value']:.4f} at {best['step']}"
            table.add_row(
                _name(slot), str(slot.trial.rank), f"{slot.step}/{progress.num_steps}", last, shown, progress.status
            )
        return table

    def ended(self, name: str, end: object) -> None:
        """A trial left."""
        self._ended += 1

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _name(slot: Slot) -> str:
    return str(getattr(slot.trial.token, "name", "trial"))
