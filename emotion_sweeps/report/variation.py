"""The noise of one run: from seeds where enough configurations were replicated, else from an additive model.

With replicates: s^2 = sum over configurations of (n_i - 1) var_i / sum (n_i - 1), after taking out what a seed does to
every configuration alike where all ran with the same seeds. Fewer than `_ENOUGH` degrees of freedom are joined with the
residuals of y = mean + one term a factor, which also hold whatever the factors do jointly, and so are rather too large
than too small. Neither: nothing is known about the noise, and the report says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emotion_sweeps.report.factors import Factor
from emotion_sweeps.report.findings import NoiseEstimate
from emotion_sweeps.report.linear import Array, additive_design
from emotion_sweeps.report.ranking import Entry, value_of

_ENOUGH = 10


@dataclass(frozen=True)
class Observations:
    """The ranked configurations as numbers."""

    y: Array  # (num_entries,) means over seeds
    weights: Array  # (num_entries,) runs behind each
    pure_squares: float  # between seeds
    pure_degrees: int
    replicated: int  # configurations with several seeds

    @property
    def scale(self) -> float:
        """The size of the values, against which rounding is nothing."""
        return float(np.abs(self.y).max()) if len(self.y) else 0.0


def observe(entries: Sequence[Entry], metric: str) -> Observations:
    """The means of the entries and what their seeds say about the noise."""
    values = [np.array([v for run in entry.runs if (v := value_of(run, metric)) is not None]) for entry in entries]
    squares, degrees, replicated = 0.0, 0, 0
    table = _same_seeds(entries, metric)
    if table is not None:
        left = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
        squares, degrees = float((left**2).sum()), (table.shape[0] - 1) * (table.shape[1] - 1)
        replicated = len(table)
    else:
        for group in values:
            if len(group) > 1:
                squares += float(((group - group.mean()) ** 2).sum())
                degrees += len(group) - 1
                replicated += 1
    means = np.array([group.mean() for group in values])
    return Observations(means, np.array([float(len(group)) for group in values]), squares, degrees, replicated)


def _same_seeds(entries: Sequence[Entry], metric: str) -> Array | None:
    """(num_entries, num_seeds) where at least two configurations ran, all with the same two or more seeds."""
    rows = [{run.seed: value_of(run, metric) for run in entry.runs} for entry in entries]
    if len(rows) < 2 or len(rows[0]) < 2 or None in rows[0]:
        return None
    if any(row.keys() != rows[0].keys() for row in rows) or any(len(e.runs) != len(rows[0]) for e in entries):
        return None
    return np.array([[row[seed] for seed in rows[0]] for row in rows], np.float64)


def noise_of(
    seen: Observations, factors: Sequence[Factor], joint: Array | None = None
) -> tuple[NoiseEstimate | None, str]:
    """The noise of one run and a sentence on where it comes from, or why there is none.

    Args:
        joint: columns of the interactions that were found, which are no noise.
    """
    seeds = f"{seen.replicated} configuration{'s' * (seen.replicated > 1)} with several seeds"
    if seen.pure_degrees >= _ENOUGH:
        return _estimate(seen, seen.pure_squares, seen.pure_degrees, seeds)
    squares, degrees = residual_noise(seen, factors, joint)
    if degrees > 0:
        model = "the residuals of an additive model of the settings"
        return _estimate(seen, squares, degrees, f"{model} and {seeds}" if seen.pure_degrees else model)
    if len(seen.y) < 2:
        return None, "One configuration ran, so there is nothing to compare."
    return None, (
        f"No noise estimate: no configuration ran with a second seed, and {len(seen.y)} runs are no more than the "
        "settings that differ between them, so that an additive model fits them exactly."
    )


def residual_noise(
    seen: Observations, factors: Sequence[Factor], extra: Array | None = None, own: Factor | None = None
) -> tuple[float, int]:
    """Sum of squares and degrees of freedom of residuals and seeds together, `extra` columns in the model."""
    design = additive_design(factors, seen.weights, own=own)
    if extra is not None and extra.shape[1]:
        design = type(design)(np.hstack([design.matrix, extra]), seen.weights, design.columns)
    _, squares = design.fit(seen.y)
    return squares + seen.pure_squares, len(seen.y) - design.rank + seen.pure_degrees


def _estimate(seen: Observations, squares: float, degrees: int, source: str) -> tuple[NoiseEstimate, str]:
    deviation = math.sqrt(squares / degrees)
    deviation = deviation if deviation > 1e-12 * seen.scale else 0.0  # rounding is no noise
    return NoiseEstimate(deviation, degrees, source), (
        f"The noise of one run is estimated at {deviation:.2g} (standard deviation, {degrees} degrees of freedom), "
        f"from {source}."
    )
