"""Levels of a factor against each other: within matched configurations where there are enough, else by regression.

Paired: entries that agree in every other factor form a group, and a pair of levels is compared by the mean of its
differences over the groups that hold both: standard error s sqrt(sum(1/n_a + 1/n_b)) / groups. Nothing is assumed of
the other factors. Adjusted: the contrast of the additive model, where it is estimable without being blown up by the
others. Which of the two is decided by the design alone, never by the values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emotion_sweeps.report.factors import Factor
from emotion_sweeps.report.findings import NoiseEstimate
from emotion_sweeps.report.linear import Design, additive_design, level_columns, within_groups
from emotion_sweeps.report.multiplicity import Family
from emotion_sweeps.report.variation import Observations, residual_noise

Mode = Literal["paired", "adjusted", "confounded"]
FEWEST = 3  # matched runs, or runs of a level, below which a difference is told but not tested
_ENTANGLED = 5.0  # variance of an adjusted contrast against that of the plain one, above which others stand in for it


@dataclass(frozen=True)
class Contrast:
    """Level `a` minus level `b`."""

    a: int
    b: int
    difference: float
    error: float | None  # standard error; None without a noise estimate
    degrees: int
    n_pairs: int  # matched runs; 0: adjusted
    p_value: float | None
    few: bool = False  # too few runs to test


@dataclass(frozen=True)
class Comparison:
    """Everything that the entries say about one factor."""

    factor: Factor
    mode: Mode
    contrasts: tuple[Contrast, ...]
    omnibus: float | None = None
    deviation: float | None = None  # of one run, as used here
    unseen: tuple[tuple[int, int], ...] = field(default=())  # pairs of levels that nothing compares

    @property
    def family(self) -> Family | None:
        """Its p-values, None where there is nothing to test with."""
        values = tuple(c.p_value for c in self.contrasts if c.p_value is not None)
        return Family(self.omnibus, values, len(self.factor.levels)) if values and self.omnibus is not None else None


def compare(
    factor: Factor,
    varying: Sequence[Factor],
    seen: Observations,
    noise: NoiseEstimate | None,
) -> Comparison:
    """Compare the levels of `factor`, one of `varying`, in the way that the design allows."""
    groups = _groups([other for other in varying if other is not factor], len(seen.y))
    matched = _matched(factor, groups)
    if matched.sum() * 2 >= len(seen.y):
        paired = _paired(factor, groups, matched, seen, noise)
        if not paired.unseen:
            return paired
    adjusted = _adjusted(factor, varying, seen)
    if adjusted is not None:
        return adjusted
    return _paired(factor, groups, matched, seen, noise)


def _groups(others: Sequence[Factor], num_entries: int) -> NDArray[np.int64]:
    """Entries that agree in all of `others` (exactly, ranges do not count) have the same number."""
    groups = np.zeros(num_entries, np.int64)
    for other in others:
        column = other.codes if other.exact is None else np.unique(other.exact, return_inverse=True)[1]
        groups = np.unique(groups * (int(column.max()) + 1) + column, return_inverse=True)[1].astype(np.int64)
    return groups


def _matched(factor: Factor, groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Entries whose group holds another level too."""
    cells = np.unique(np.stack([groups, factor.codes]), axis=1)
    levels_in = np.bincount(cells[0], minlength=int(groups.max()) + 1)
    return np.asarray(levels_in[groups] > 1)


def _paired(
    factor: Factor,
    groups: NDArray[np.int64],
    matched: NDArray[np.bool_],
    seen: Observations,
    noise: NoiseEstimate | None,
) -> Comparison:
    means, counts = _table(factor, groups, matched, seen)
    contrasts: list[Contrast] = []
    unseen: list[tuple[int, int]] = []
    for a, b in combinations(range(len(factor.levels)), 2):
        both = (counts[:, a] > 0) & (counts[:, b] > 0)
        if not both.any():
            unseen.append((a, b))
            continue
        n_a, n_b = counts[both, a], counts[both, b]
        difference = float((means[both, a] - means[both, b]).mean())
        unit = math.sqrt(float((1 / n_a + 1 / n_b).sum())) / int(both.sum())
        n_pairs = int(np.minimum(n_a, n_b).sum())
        contrasts.append(_contrast(a, b, difference, unit, n_pairs, noise, few=n_pairs < FEWEST))
    mode: Mode = "paired" if contrasts else "confounded"
    omnibus = _omnibus_within(factor, groups, matched, seen, noise, contrasts)
    return Comparison(factor, mode, tuple(contrasts), omnibus, noise.deviation if noise else None, tuple(unseen))


def _table(
    factor: Factor, groups: NDArray[np.int64], matched: NDArray[np.bool_], seen: Observations
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and number of runs, `(num_groups, num_levels)` each; where an exact number has ranges, a cell may hold
    several entries."""
    _, rows = np.unique(groups[matched], return_inverse=True)
    shape = (int(rows.max()) + 1 if len(rows) else 0, len(factor.levels))
    flat = rows * shape[1] + factor.codes[matched]
    size = shape[0] * shape[1]
    counts = np.bincount(flat, seen.weights[matched], size).reshape(shape)
    sums = np.bincount(flat, seen.weights[matched] * seen.y[matched], size).reshape(shape)
    return np.divide(sums, counts, out=np.zeros(shape), where=counts > 0), np.asarray(counts, np.float64)


def _contrast(
    a: int, b: int, difference: float, unit: float, n_pairs: int, noise: NoiseEstimate | None, *, few: bool
) -> Contrast:
    if noise is None:
        return Contrast(a, b, difference, None, 0, n_pairs, None, few)
    error = unit * noise.deviation
    p_value = 1.0 if few else _two_sided(difference, error, noise.degrees)
    return Contrast(a, b, difference, error, noise.degrees, n_pairs, p_value, few)


def _two_sided(difference: float, error: float, degrees: int) -> float:
    from scipy.stats import t  # type: ignore[import-untyped]

    if error <= 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * t.sf(abs(difference) / error, degrees))


def _f_test(squares: float, columns: int, deviation: float, degrees: int) -> float:
    from scipy.stats import f

    if deviation <= 0:
        return 1.0 if squares <= 0 else 0.0
    return float(f.sf(squares / columns / deviation**2, columns, degrees))


def _omnibus_within(
    factor: Factor,
    groups: NDArray[np.int64],
    matched: NDArray[np.bool_],
    seen: Observations,
    noise: NoiseEstimate | None,
    contrasts: Sequence[Contrast],
) -> float | None:
    if noise is None or not contrasts:
        return None
    if len(factor.levels) == 2:
        return contrasts[0].p_value
    _, rows = np.unique(groups[matched], return_inverse=True)
    weights = seen.weights[matched]
    y = within_groups(seen.y[matched], rows, weights)
    columns = within_groups(level_columns(factor)[matched], rows, weights)
    design = Design(columns, weights, {})
    _, left = design.fit(y)
    return _f_test(float((weights * y**2).sum()) - left, design.rank, noise.deviation, noise.degrees)


def _adjusted(factor: Factor, varying: Sequence[Factor], seen: Observations) -> Comparison | None:
    """The contrasts of the additive model, None where it cannot tell the factor from the others."""
    design = additive_design(varying, seen.weights, own=factor)
    columns, num_levels = design.columns[factor.name], len(factor.levels)
    runs = np.bincount(factor.codes, seen.weights, num_levels)
    beta, squares_with = design.fit(seen.y)
    squares, degrees = residual_noise(seen, varying, own=factor)
    if degrees < 1:
        return None
    noise = NoiseEstimate(_deviation(squares, degrees, seen.scale), degrees, "")
    contrasts = []
    for a, b in combinations(range(num_levels), 2):
        form = np.zeros(design.matrix.shape[1])
        for level, sign in ((a, 1.0), (b, -1.0)):
            if level:
                form[columns.start + level - 1] += sign
        variance, few = design.variance(form), bool(min(runs[a], runs[b]) < FEWEST)
        if variance is None or variance > _ENTANGLED * (1 / runs[a] + 1 / runs[b]):
            return None
        contrasts.append(_contrast(a, b, float(form @ beta), math.sqrt(variance), 0, noise, few=few))
    if num_levels == 2:
        omnibus = contrasts[0].p_value
    else:
        _, squares_without = additive_design([f for f in varying if f is not factor], seen.weights).fit(seen.y)
        omnibus = _f_test(squares_without - squares_with, num_levels - 1, noise.deviation, degrees)
    return Comparison(factor, "adjusted", tuple(contrasts), omnibus, noise.deviation)


def _deviation(squares: float, degrees: int, scale: float) -> float:
    deviation = math.sqrt(squares / degrees)
    return deviation if deviation > 1e-12 * scale else 0.0
