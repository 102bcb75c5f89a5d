"""Synchronous successive halving (arXiv 1502.07943): at each rung the best of all trials of the study go on.

The outcome is that of comparing all trials at a rung at once, but no slot waits for it: a trial is

    promoted  once its place holds even if every trial still to come is better:  rank + open <= quota
    ended     once as many are better as may go on:                              rank > quota
    paused    in between

so the answer depends on the values alone, not on the order in which they came. How many go on follows from the budget
(`rungs.py`): a third of the full training by default, which trials of 6 evaluations or more keep.
"""

from __future__ import annotations

from dataclasses import dataclass

from emotion_sweeps.sweeps.pruning.board import Board, Decision, last_index
from emotion_sweeps.sweeps.pruning.rungs import Rung, quotas, resources, rung_of, standings


@dataclass(frozen=True)
class Halving:
    """Successive halving over all trials that the study will have."""

    min_resource: int
    reduction_factor: int
    max_resource: int | None
    maximize: bool
    budget: float | None = None

    def decide(self, trial: int, board: Board) -> Decision:
        """GO between rungs and when surely among the best of its rung, STOP when surely not, else PAUSE."""
        rung = rung_of(trial, self._rungs(board), board)
        if rung is None or rung.resource != last_index(board.histories[trial]):
            return Decision.GO
        return _fate(rung, trial)

    def promote(self, board: Board) -> int | None:
        """The best paused trial that is sure of its place, on the highest rung that has one."""
        rungs = self._rungs(board)
        at = {trial: rung_of(trial, rungs, board) for trial in board.paused}
        for rung in reversed(rungs):
            for trial in rung.ranked:
                if at.get(trial) is rung and _fate(rung, trial) is Decision.GO:
                    return trial
        return min((trial for trial, rung in at.items() if rung is None), default=None)

    def dropped(self, board: Board) -> frozenset[int]:
        """The paused trials with too many better ones at their rung."""
        rungs = self._rungs(board)
        at = {trial: rung_of(trial, rungs, board) for trial in board.paused}
        return frozenset(t for t, rung in at.items() if rung and _fate(rung, t) is Decision.STOP)

    def _rungs(self, board: Board) -> list[Rung]:
        levels = resources(self.min_resource, self.reduction_factor, self.max_resource, board)
        total = len(board.histories) + board.unstarted
        goes_on = quotas(total, tuple(levels), self.max_resource, self.reduction_factor, self.budget)
        return standings(board, levels, goes_on, maximize=self.maximize)


def _fate(rung: Rung, trial: int) -> Decision:
    rank = rung.ranks.get(trial)
    if rank is None or rank > rung.quota:
        return Decision.STOP
    return Decision.GO if rank + rung.open <= rung.quota else Decision.PAUSE
