"""Replays a study on recorded learning curves: what a pruner would have trained, and whether it ends at the best cell.

A recording holds every cell of a grid trained to its end, one value an evaluation. The replay claims, reports, pauses
and promotes exactly as a study does (the protocol in `pruning/__init__.py`), in simulated time: an evaluation takes as
long as its optimizer steps, and slots that report at the same moment are decided together, as in a pack.

    share = optimizer steps trained / optimizer steps of the full grid

Costs milliseconds a study and needs no torch.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps.pruning import Board, Decision, Pruner


@dataclass(frozen=True)
class Curve:
    """One cell: its name, and the optimizer step and the objective's value of each evaluation."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Replay:
    """The outcome of one replayed study; `best` is its best complete cell, None where none is complete."""

    best: int | None
    reached: bool
    steps: int
    full_steps: int
    histories: dict[int, list[float]]  # by cell, what was trained of it
    complete: frozenset[int]

    @property
    def share(self) -> float:
        """Optimizer steps trained, as a share of the full grid's."""
        return self.steps / self.full_steps


def load_recording(path: Path, metric: str) -> list[Curve]:
    """The curves of `metric` in a recording file (the format is in docs/pruning.md)."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [
            Curve(
                str(cell["name"]),
                tuple(int(step) for step in cell["steps"]),
                tuple(math.nan if value is None else float(value) for value in cell["metrics"][metric]),
            )
            for cell in cells
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a recording with curves of {metric} ({error!r})") from None


def score(values: Sequence[float], *, maximize: bool) -> float:
    """A cell's score, lower is better: its best finite value; infinite without one."""
    finite = [value for value in values if math.isfinite(value)]
    return min((-value if maximize else value for value in finite), default=math.inf)


def replay(curves: Sequence[Curve], pruner: Pruner, *, direction: str, order_seed: int, slots: int = 1) -> Replay:
    """Run the study over `curves` in the order drawn from `order_seed`.

    `reached` is true when the best complete cell has the score of the full grid's best.
    """
    order = list(range(len(curves)))
    random.Random(order_seed).shuffle(order)
    study = _Study([curves[cell] for cell in order], pruner, slots)
    study.run()
    maximize = direction == "maximize"
    full = [score(curve.values, maximize=maximize) for curve in curves]
    complete = frozenset(order[trial] for trial in study.complete)
    best = min(complete, key=lambda cell: (full[cell], cell), default=None)
    return Replay(
        best=best,
        reached=best is not None and full[best] == min(full),
        steps=study.steps,
        full_steps=sum(curve.steps[-1] for curve in curves),
        histories={order[t]: [value for _, value in history] for t, history in study.histories.items()},
        complete=complete,
    )


@dataclass
class _Study:
    """The state of a replayed study; trials are numbered in the order of `curves`."""

    curves: list[Curve]
    pruner: Pruner
    slots: int
    histories: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    complete: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)
    running: list[tuple[int, int]] = field(default_factory=list)  # (time of its next evaluation, trial)
    now: int = 0
    steps: int = 0

    def run(self) -> None:
        self._fill()
        while self.running:
            self.now = self.running[0][0]
            due = []
            while self.running and self.running[0][0] == self.now:
                due.append(heapq.heappop(self.running)[1])
            for trial in due:
                self._report(trial)
            for trial in due:
                self._decide(trial)
            self._fill()
        if self.paused:
            raise AssertionError(f"the pruner left trials {sorted(self.paused)} neither promoted nor dropped")

    def _board(self) -> Board:
        return Board(
            dict(self.histories),
            frozenset(self.complete),
            frozenset(self.ended),
            frozenset(self.paused),
            len(self.curves) - len(self.histories),
        )

    def _fill(self) -> None:
        """Claim trials until every slot works or nothing can be claimed now."""
        while len(self.running) < self.slots and (trial := self._claim()) is not None:
            self._train(trial)

    def _claim(self) -> int | None:
        dropped = self.pruner.dropped(self._board())
        self.paused -= dropped
        self.ended |= dropped
        trial = self.pruner.promote(self._board())
        if trial is not None:
            self.paused.remove(trial)
        elif len(self.histories) < len(self.curves):
            trial = len(self.histories)
            self.histories[trial] = []
        return trial

    def _train(self, trial: int) -> None:
        curve, done = self.curves[trial], len(self.histories[trial])
        cost = curve.steps[done] - (curve.steps[done - 1] if done else 0)
        self.steps += cost
        heapq.heappush(self.running, (self.now + cost, trial))

    def _report(self, trial: int) -> None:
        history = self.histories[trial]
        history.append((len(history) + 1, self.curves[trial].values[len(history)]))
        if len(history) == len(self.curves[trial].values):
            self.complete.add(trial)
            self.ended.add(trial)

    def _decide(self, trial: int) -> None:
        if trial in self.complete:
            return
        decision = self.pruner.decide(trial, self._board())
        if decision is Decision.GO:
            self._train(trial)
        else:
            (self.paused if decision is Decision.PAUSE else self.ended).add(trial)
