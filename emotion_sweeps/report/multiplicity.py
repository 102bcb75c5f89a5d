"""How all statements of a study are kept right together: 5 % for at least one false one, whatever is true.

The 5 % are shared: MAIN for comparisons of levels, INTERACTIONS, BEST for ruling configurations out as the best.
Comparisons: each factor is a family, with an omnibus test before its pairs (closed testing: a pair of k levels is
tested after the omnibus with Shaffer's counts of hypotheses that can be true together; Shaffer 1986). The families
share MAIN by Bonferroni; one in which every pair was told apart hands its share on to the others, as in Holm's
procedure, to which this reduces for factors of two levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

FAMILY_WISE = 0.05
MAIN, INTERACTIONS, BEST = 0.046, 0.002, 0.002


@dataclass(frozen=True)
class Adjusted:
    """One pair after the adjustment."""

    p_value: float  # found where <= FAMILY_WISE
    level: float  # the size of the single test that it came down to: its interval is 1 - level


@dataclass(frozen=True)
class Family:
    """The p-values of one factor."""

    omnibus: float
    pairs: tuple[float, ...]
    num_levels: int


def adjust(families: Sequence[Family]) -> list[list[Adjusted]]:
    """Adjusted p-values, in the order given."""
    inside = [_closed(family) for family in families]
    exhausted_at = [max((q for q, _ in pairs), default=1.0) for pairs in inside]
    out = []
    for index, pairs in enumerate(inside):
        others = sorted(p for i, p in enumerate(exhausted_at) if i != index)
        out.append([_shared(q, count, others) for q, count in pairs])
    return out


def _closed(family: Family) -> list[tuple[float, int]]:
    """(adjusted p within the family, number of hypotheses it was tested among) for each pair."""
    counts = sorted(_true_together(family.num_levels))
    total = family.num_levels * (family.num_levels - 1) // 2
    order = sorted(range(len(family.pairs)), key=lambda i: family.pairs[i])
    result: list[tuple[float, int]] = [(1.0, 1)] * len(family.pairs)
    running = family.omnibus
    for step, index in enumerate(order):
        # After the omnibus at least one pair differs, so the first step counts like the second.
        possible = total - max(step, 1) if total > 1 else 1
        count = max(1, max(c for c in counts if c <= possible))
        running = max(running, min(1.0, count * family.pairs[index]))
        result[index] = (running, count)
    return result


@cache
def _true_together(num_levels: int) -> frozenset[int]:
    """The numbers of pairwise equalities of `num_levels` means that can hold at once."""
    if num_levels <= 1:
        return frozenset({0})
    return frozenset(
        size * (size - 1) // 2 + rest for size in range(1, num_levels + 1) for rest in _true_together(num_levels - size)
    )


def _shared(q: float, count: int, others: Sequence[float]) -> Adjusted:
    """The smallest share of MAIN at which `q` is found, where exhausted families (ascending) hand theirs on."""
    families = len(others) + 1
    best, needed, sharing = min(1.0, families * q), 0.0, families
    for done, p in enumerate(others, start=1):
        needed = max(needed, (families - done + 1) * p)
        best = min(best, max(needed, (families - done) * q))
        if needed <= MAIN:
            sharing = families - done
    return Adjusted(min(1.0, best * FAMILY_WISE / MAIN), MAIN / sharing / count)


def holm(p_values: Sequence[float], share: float) -> list[float]:
    """Holm's adjusted p-values, scaled so that FAMILY_WISE stands for `share` of it."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [1.0] * len(p_values), 0.0
    for step, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - step) * p_values[index] * FAMILY_WISE / share))
        adjusted[index] = running
    return adjusted
