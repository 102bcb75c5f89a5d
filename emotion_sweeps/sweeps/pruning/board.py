"""What a pruner looks at: every trial's evaluations and state at one moment, and the order of the trials at a rung.

The score of a trial at a resource of m evaluations is its best value among the first m: that is what the trial would
return if it ended there. A non-finite value as the latest of them means that it has diverged: it has no score, ranks
behind everything and is never promoted. Equal scores are ordered by trial number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

History = Sequence[tuple[int, float]]


class Decision(Enum):
    """What a trial does after an evaluation."""

    GO = "go"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True)
class Board:
    """A snapshot of a study.

    Args:
        histories: of every trial that was started, `(evaluation index from 1, value)`; empty before the first one.
        complete: trials that trained to their own end.
        ended: trials that will report no more: complete, pruned, failed, infeasible. A failed trial that will be
            tried again under its number is not among them.
        paused: trials that were told to pause and not resumed since.
        unstarted: trials that the study will still start, beyond those in `histories`.
    """

    histories: Mapping[int, History]
    complete: frozenset[int] = frozenset()
    ended: frozenset[int] = frozenset()
    paused: frozenset[int] = frozenset()
    unstarted: int = 0

    def only(self, trials: frozenset[int], unstarted: int) -> Board:
        """The same snapshot of some trials alone."""
        return Board(
            {t: h for t, h in self.histories.items() if t in trials},
            self.complete & trials,
            self.ended & trials,
            self.paused & trials,
            unstarted,
        )


def last_index(history: History) -> int:
    """Evaluations reported so far."""
    return max((index for index, _ in history), default=0)


def cost_at(history: History, resource: int, *, maximize: bool) -> float | None:
    """The score after `resource` evaluations, lower is better; None where there is none (diverged, or no value)."""
    values = [value for index, value in sorted(history) if index <= resource]
    if not values or not math.isfinite(values[-1]):
        return None
    finite = [value for value in values if math.isfinite(value)]
    return -max(finite) if maximize else min(finite)


def reached(trial: int, resource: int, board: Board) -> bool:
    """Whether the trial has done `resource` evaluations, or ended by itself with fewer (its score then stands)."""
    return trial in board.complete or last_index(board.histories[trial]) >= resource


def ranked_at(resource: int, board: Board, *, maximize: bool) -> list[int]:
    """The trials that reached `resource` and have a score there, best first."""
    costs = {
        trial: cost_at(history, resource, maximize=maximize)
        for trial, history in board.histories.items()
        if reached(trial, resource, board)
    }
    scored = [(cost, trial) for trial, cost in costs.items() if cost is not None]
    return [trial for _, trial in sorted(scored)]
