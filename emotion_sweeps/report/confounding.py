"""Which settings moved together, so that nobody can say which of them made the difference.

Two levels that no matched pair holds are traced to the pairs of runs that come closest: the other settings in which
those nearest runs differ are what the comparison is confounded with. Pairs of levels * pairs of runs, on at most
`_SAMPLED` entries of a level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from emotion_sweeps.report.factors import Factor, determines
from emotion_sweeps.report.linear import Array

_SAMPLED = 150


def moves_with(factor: Factor, varying: Sequence[Factor]) -> list[str]:
    """The factors that fix the level of `factor` in every run, and the other way round."""
    return [o.name for o in varying if o is not factor and determines(o, factor) and determines(factor, o)]


def stand_ins(factor: Factor, varying: Sequence[Factor]) -> list[str]:
    """The settings that differ beside `factor` between the nearest runs of each pair of levels, most frequent first."""
    others = [other for other in varying if other is not factor]
    counted: Counter[str] = Counter()
    for a in range(len(factor.levels)):
        for b in range(a + 1, len(factor.levels)):
            for names in _nearest(factor, a, b, others):
                counted.update(names)
    together = moves_with(factor, varying)
    return together + [name for name, _ in counted.most_common() if name not in together]


def _nearest(factor: Factor, a: int, b: int, others: Sequence[Factor]) -> set[frozenset[str]]:
    """The smallest sets of other settings in which a run at level `a` and one at level `b` differ."""
    first, second = (np.flatnonzero(factor.codes == level)[:_SAMPLED] for level in (a, b))
    if not others or not len(first) or not len(second):
        return set()
    differ = np.stack([o.codes[first][:, None] != o.codes[second][None, :] for o in others], axis=-1)
    sizes = differ.sum(-1)
    smallest = differ[sizes == sizes.min()]
    return {frozenset(o.name for o, d in zip(others, row, strict=True) if d) for row in np.unique(smallest, axis=0)}


def only_at(factor: Factor, level: int, others: Sequence[Factor]) -> list[tuple[str, str]]:
    """Settings that every run of a level shares although they vary elsewhere: (name, level)."""
    at = factor.codes == level
    return [
        (other.name, other.levels[int(other.codes[at][0])])
        for other in others
        if other is not factor and len(set(other.codes[at].tolist())) == 1
    ]


def plain_means(factor: Factor, y: Array, weights: Array) -> Array:
    """The average of the runs at each level."""
    return np.asarray(
        np.bincount(factor.codes, weights * y, len(factor.levels))
        / np.bincount(factor.codes, weights, len(factor.levels))
    )
