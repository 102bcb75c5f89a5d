"""Hyperband (arXiv 1603.06560): several successive halvings side by side that begin to compare at different times.

    bracket s of 0..S, S = floor(log_eta(T / m)): first rung after m * eta**(S - s) evaluations (none for s = 0),
    holding trials in the proportion ceil((S + 1) / (s + 1) * eta**s)

A hedge against curves that cross late, at a price: it trains far more than `halving` alone. The bracket of a trial is
a pure function of its number, dealt so that every run of consecutive numbers has nearly the right proportions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from emotion_sweeps.sweeps.pruning.board import Board, Decision
from emotion_sweeps.sweeps.pruning.halving import Halving


@dataclass(frozen=True)
class Hyperband:
    """One synchronous halving a bracket; needs the length of a whole trial."""

    min_resource: int
    reduction_factor: int
    max_resource: int
    maximize: bool

    def decide(self, trial: int, board: Board) -> Decision:
        """What the halving of the trial's bracket says."""
        bracket = self.bracket(trial)
        return self._halving(bracket).decide(trial, self._part(bracket, board))

    def promote(self, board: Board) -> int | None:
        """The first promotion of any bracket, the ones that compare earliest first."""
        for bracket in range(self._last_bracket, -1, -1):
            trial = self._halving(bracket).promote(self._part(bracket, board))
            if trial is not None:
                return trial
        return None

    def dropped(self, board: Board) -> frozenset[int]:
        """What the brackets drop."""
        brackets = range(self._last_bracket + 1)
        return frozenset().union(*(self._halving(b).dropped(self._part(b, board)) for b in brackets))

    def bracket(self, trial: int) -> int:
        """The bracket of a trial by its number."""
        deal = _deal(self._last_bracket, self.reduction_factor)
        return deal[trial % len(deal)]

    @property
    def _last_bracket(self) -> int:
        last, resource = 0, self.min_resource * self.reduction_factor
        while resource <= self.max_resource:
            last, resource = last + 1, resource * self.reduction_factor
        return last

    def _halving(self, bracket: int) -> Halving:
        if bracket == 0:  # rungs from the end of training on: none
            return Halving(self.max_resource, self.reduction_factor, self.max_resource, self.maximize)
        first = self.min_resource * self.reduction_factor ** (self._last_bracket - bracket)
        return Halving(first, self.reduction_factor, self.max_resource, self.maximize)

    def _part(self, bracket: int, board: Board) -> Board:
        mine = frozenset(trial for trial in board.histories if self.bracket(trial) == bracket)
        next_number = max(board.histories, default=-1) + 1
        coming = range(next_number, next_number + board.unstarted)
        return board.only(mine, sum(self.bracket(number) == bracket for number in coming))


@cache
def _deal(last_bracket: int, factor: int) -> list[int]:
    """One round of brackets in their proportions, each next one the one that is furthest behind its share."""
    weights = {s: math.ceil((last_bracket + 1) / (s + 1) * factor**s) for s in range(last_bracket, -1, -1)}
    total, dealt = sum(weights.values()), dict.fromkeys(weights, 0)
    deal = []
    for number in range(1, total + 1):
        bracket = max(weights, key=lambda s: weights[s] * number / total - dealt[s])
        dealt[bracket] += 1
        deal.append(bracket)
    return deal
