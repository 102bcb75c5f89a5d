"""Rungs: the numbers of evaluations at which trials are compared, how many go on, and how far each is decided.

    rung i at m * eta**i evaluations, below the length T of a whole trial
    of n trials, n * f**(i + 1) go on past rung i, at least one, with the largest f >= 1 / eta for which
    n m + sum_i n f**(i + 1) (m_(i+1) - m_i) <= budget * n T

Textbook halving is f = 1 / eta. What a budget leaves beyond that is spent on more survivors: the first evaluations
say little about the last ones, and places near the top are the ones that are lost (docs/pruning.md has figures).
A rung stays open while further trials may still reach it. `open` is an upper bound of their number, exact once the
rung below is closed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from emotion_sweeps.sweeps.pruning.board import Board, last_index, ranked_at, reached


@dataclass(frozen=True)
class Rung:
    """One rung: who stands there, best first, how many may still come, and how many go on when all are there."""

    resource: int
    ranked: list[int]
    open: int
    quota: int

    @cached_property
    def ranks(self) -> dict[int, int]:
        """Place from 1 of each trial that has a score here."""
        return {trial: place for place, trial in enumerate(self.ranked, start=1)}


def resources(first: int, factor: int, max_resource: int | None, board: Board) -> list[int]:
    """Evaluations of each rung; without a known length, as far as any trial got."""
    seen = max((last_index(history) for history in board.histories.values()), default=0)
    end = seen + 1 if max_resource is None else max_resource
    rungs = []
    while first < end:
        rungs.append(first)
        first *= factor
    return rungs


@lru_cache(maxsize=64)
def quotas(
    num_trials: int, rungs: tuple[int, ...], max_resource: int | None, factor: int, budget: float | None
) -> tuple[int, ...]:
    """How many of `num_trials` go on past each rung: one in `factor`, or more where the budget allows it.

    Args:
        budget: the share of the evaluations of all whole trials that may be spent; None asks for no more than one
            in `factor`, and so does an unknown `max_resource`.
    """
    least = _geometric(num_trials, len(rungs), 1 / factor)
    if budget is None or max_resource is None or not rungs:
        return least
    limit = budget * num_trials * max_resource
    low, high = 1 / factor, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        fits = _cost(_geometric(num_trials, len(rungs), middle), num_trials, rungs, max_resource) <= limit
        low, high = (middle, high) if fits else (low, middle)
    chosen = list(_geometric(num_trials, len(rungs), low))
    for level in reversed(range(len(rungs))):  # what rounding down left, the last rung first
        more = [*chosen[:level], chosen[level] + 1, *chosen[level + 1 :]]
        ordered = level == 0 or more[level] <= more[level - 1]
        if ordered and _cost(more, num_trials, rungs, max_resource) <= limit:
            chosen = more
    return tuple(chosen)


def _geometric(num_trials: int, levels: int, keep: float) -> tuple[int, ...]:
    return tuple(max(1, math.floor(num_trials * keep ** (level + 1) + 1e-9)) for level in range(levels))


def _cost(goes_on: Sequence[int], num_trials: int, rungs: tuple[int, ...], max_resource: int) -> int:
    """Evaluations of a halving whose every place is taken."""
    ends = (*rungs[1:], max_resource)
    return num_trials * rungs[0] + sum(q * (b - a) for q, a, b in zip(goes_on, rungs, ends, strict=True))


def standings(board: Board, levels: Sequence[int], goes_on: Sequence[int], *, maximize: bool) -> list[Rung]:
    """Every rung of the board, the lowest first; `levels` are their evaluations, `goes_on` their quotas."""
    rungs: list[Rung] = []
    for resource, quota in zip(levels, goes_on, strict=True):
        ranked = ranked_at(resource, board, maximize=maximize)
        rungs.append(Rung(resource, ranked, _open(resource, rungs, board), quota))
    return rungs


def _open(resource: int, below: list[Rung], board: Board) -> int:
    coming = {t for t in board.histories if t not in board.ended and not reached(t, resource, board)}
    if not below:
        return len(coming) + board.unstarted
    rung = below[-1]
    sure = rung.ranked[: max(0, rung.quota - rung.open)]
    arrived = sum(t in board.ended or reached(t, resource, board) for t in sure)
    candidates = sum(t in coming for t in rung.ranked[: rung.quota])
    return max(0, min(rung.quota - arrived, candidates + rung.open))


def rung_of(trial: int, rungs: list[Rung], board: Board) -> Rung | None:
    """The highest rung that `trial` has reached, None below the first."""
    done = last_index(board.histories[trial])
    return next((rung for rung in reversed(rungs) if rung.resource <= done), None)
