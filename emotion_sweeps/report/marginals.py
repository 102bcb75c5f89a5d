"""Marginal means: each level of a factor, the others held at the mix in which they occur.

From the additive model where every level is estimable (then the levels differ by the factor alone, as far as effects
add up), else plain averages, which also carry whatever moved with the factor. Intervals are pointwise, 95 %, t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from emotion_sweeps.report.confounding import plain_means
from emotion_sweeps.report.factors import Factor
from emotion_sweeps.report.findings import MarginalMean, Marginals, NoiseEstimate
from emotion_sweeps.report.linear import Array, additive_design
from emotion_sweeps.report.variation import Observations


def marginals_of(
    factor: Factor, varying: Sequence[Factor], seen: Observations, noise: NoiseEstimate | None
) -> Marginals:
    """The marginal means of one factor."""
    runs = np.bincount(factor.codes, seen.weights, len(factor.levels))
    adjusted = _adjusted(factor, varying, seen)
    means, variances = adjusted or (plain_means(factor, seen.y, seen.weights), 1 / runs)
    half = _half_widths(variances, noise)
    rows = tuple(
        MarginalMean(
            level,
            float(means[i]),
            None if half is None else float(means[i] - half[i]),
            None if half is None else float(means[i] + half[i]),
            int(runs[i]),
        )
        for i, level in enumerate(factor.levels)
    )
    return Marginals(factor.name, rows, adjusted is not None and len(varying) > 1, factor.exact is not None)


def _adjusted(factor: Factor, varying: Sequence[Factor], seen: Observations) -> tuple[Array, Array] | None:
    """Means and their variances in units of the noise variance, None where a level is not estimable."""
    design = additive_design(varying, seen.weights, own=factor)
    beta, _ = design.fit(seen.y)
    average = (seen.weights[:, None] * design.matrix).sum(0) / seen.weights.sum()
    columns = design.columns[factor.name]
    means, variances = [], []
    for level in range(len(factor.levels)):
        form = average.copy()
        form[columns] = 0.0
        if level:
            form[columns.start + level - 1] = 1.0
        variance = design.variance(form)
        if variance is None:
            return None
        means.append(float(form @ beta))
        variances.append(variance)
    return np.array(means), np.array(variances)


def _half_widths(variances: Array, noise: NoiseEstimate | None) -> Array | None:
    from scipy.stats import t  # type: ignore[import-untyped]

    if noise is None:
        return None
    quantile = float(t.ppf(0.975, noise.degrees))
    return np.array([quantile * noise.deviation * math.sqrt(v) for v in variances])
