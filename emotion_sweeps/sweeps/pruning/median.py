"""The median rule: a trial ends when its best value so far is worse than the median of the others at equal evaluation.

The others are all trials that reached the same evaluation, running, paused or finished; two of them are enough. It
never pauses a trial and looks only back, so its outcome depends on the order: the first trials are hard to prune.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from emotion_sweeps.sweeps.pruning.board import Board, Decision, cost_at, last_index, ranked_at

MIN_OTHERS = 2


@dataclass(frozen=True)
class Median:
    """Ends a trial below the median, from evaluation `min_resource` on."""

    min_resource: int
    maximize: bool

    def decide(self, trial: int, board: Board) -> Decision:
        """STOP when diverged or strictly worse than the median of at least two others, else GO."""
        index = last_index(board.histories[trial])
        if index < self.min_resource:
            return Decision.GO
        cost = self._cost(trial, index, board)
        if cost is None:
            return Decision.STOP
        others = [t for t in ranked_at(index, board, maximize=self.maximize) if t != trial]
        costs = [c for t in others if (c := self._cost(t, index, board)) is not None]
        return Decision.STOP if len(costs) >= MIN_OTHERS and cost > median(costs) else Decision.GO

    def promote(self, board: Board) -> int | None:
        """The first paused trial, left over from a study that had another pruner."""
        return min(board.paused, default=None)

    def dropped(self, board: Board) -> frozenset[int]:
        """None."""
        return frozenset()

    def _cost(self, trial: int, index: int, board: Board) -> float | None:
        return cost_at(board.histories[trial], index, maximize=self.maximize)
