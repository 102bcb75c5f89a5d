"""The Wilcoxon rule over replicates: a trial ends when it is worse than the best one with p < 0.1, seed by seed.

Here an evaluation index is a replicate (a seed or a fold), not a time: the histories hold each replicate's own result.
The paired differences to the best trial are ranked by size; p is the exact chance of a signed-rank sum at least as
bad if worse and better were equally likely (Wilcoxon 1945; zeros are dropped, ties share their mean rank). With k
replicates p cannot fall below 2**-k: nothing is pruned before the fourth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from emotion_sweeps.sweeps.pruning.board import Board, Decision

P_THRESHOLD = 0.1


@dataclass(frozen=True)
class Wilcoxon:
    """Ends a trial that is worse than the best one on the replicates that both have."""

    maximize: bool

    def decide(self, trial: int, board: Board) -> Decision:
        """STOP when a replicate diverged, or the best other trial is better with p < 0.1; else GO."""
        mine = self._costs(trial, board)
        if not all(map(math.isfinite, mine.values())):
            return Decision.STOP
        rivals = [
            c for t in sorted(board.histories) if t != trial and mine.keys() <= (c := self._costs(t, board)).keys()
        ]
        rivals = [costs for costs in rivals if all(math.isfinite(costs[k]) for k in mine)]
        if not rivals:
            return Decision.GO
        best = min(rivals, key=lambda costs: sum(costs[k] for k in mine))
        p = p_worse([mine[k] - best[k] for k in mine])
        return Decision.STOP if p < P_THRESHOLD else Decision.GO

    def promote(self, board: Board) -> int | None:
        """The first paused trial, left over from a study that had another pruner."""
        return min(board.paused, default=None)

    def dropped(self, board: Board) -> frozenset[int]:
        """None."""
        return frozenset()

    def _costs(self, trial: int, board: Board) -> dict[int, float]:
        sign = -1.0 if self.maximize else 1.0
        return {index: sign * value for index, value in board.histories[trial]}


def p_worse(differences: Sequence[float]) -> float:
    """One-sided exact p-value of the signed-rank test that the differences tend above zero; 1 where all are zero."""
    nonzero = [d for d in differences if d != 0]
    ranks = _doubled_ranks([abs(d) for d in nonzero])
    observed = sum(rank for rank, d in zip(ranks, nonzero, strict=True) if d > 0)
    counts = {0: 1}  # of the doubled rank sums over all sign patterns
    for rank in ranks:
        shifted = {total + rank: count for total, count in counts.items()}
        counts = {t: counts.get(t, 0) + shifted.get(t, 0) for t in counts.keys() | shifted.keys()}
    as_bad: int = sum(count for total, count in counts.items() if total >= observed)
    patterns: int = sum(counts.values())
    return as_bad / patterns


def _doubled_ranks(sizes: Sequence[float]) -> list[int]:
    """Twice the mean rank of each size, an integer: smaller ones count two, equal ones one, and itself one more."""
    return [sum(2 * (other < size) + (other == size) for other in sizes) + 1 for size in sizes]
