"""Pairs of factors whose effects do not add up, where that is beyond the noise.

One F test for each pair of factors that were fully crossed: the additive model with and without their joint terms. A
factor that another one fixes is left out, since that other one may be what a joint effect is really of.
Holm over all pairs, on the share of the family-wise 5 % that interactions have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from emotion_sweeps.report.factors import Factor, determines
from emotion_sweeps.report.linear import Array, Design, additive_design, level_columns
from emotion_sweeps.report.multiplicity import FAMILY_WISE, INTERACTIONS, holm
from emotion_sweeps.report.variation import Observations

_MOST_FACTORS = 8
_ENOUGH = 10  # degrees of freedom between seeds from which they alone are the noise
_LEAST = 4


@dataclass(frozen=True)
class Interaction:
    """A pair of factors with a joint effect."""

    first: Factor
    second: Factor
    p_value: float  # adjusted
    means: Array  # (levels of first, levels of second), from the model with the joint terms
    columns: Array  # of the joint terms, to be added to a model


def interactions_of(varying: Sequence[Factor], seen: Observations) -> list[Interaction]:
    """The interactions that are beyond the noise, the surest first."""
    own = [f for f in varying if not any(determines(o, f) for o in varying if o is not f)][:_MOST_FACTORS]
    crossed = [pair for pair in combinations(own, 2) if _crossed(*pair)]
    if not crossed:
        return []
    design = additive_design(varying, seen.weights)
    tests = [(pair, p) for pair in crossed if (p := _test(design, *pair, seen)) is not None]
    adjusted = holm([p for _, p in tests], INTERACTIONS)
    found = [
        Interaction(first, second, p, _means(first, second, varying, seen), joint_columns(first, second))
        for ((first, second), _), p in zip(tests, adjusted, strict=True)
        if p <= FAMILY_WISE
    ]
    return sorted(found, key=lambda one: one.p_value)


def _crossed(first: Factor, second: Factor) -> bool:
    cells = set(zip(first.codes.tolist(), second.codes.tolist(), strict=True))
    return len(cells) == len(first.levels) * len(second.levels)


def joint_columns(first: Factor, second: Factor) -> Array:
    """Products of the levels' indicators, `(num_entries, (levels - 1) * (levels - 1))`."""
    left, right = level_columns(first), level_columns(second)
    return np.asarray((left[:, :, None] * right[:, None, :]).reshape(len(left), -1))


def _test(design: Design, first: Factor, second: Factor, seen: Observations) -> float | None:
    """The p-value of the joint terms, None where they cannot be told from the rest or from the noise."""
    from scipy.stats import f  # type: ignore[import-untyped]

    root = np.sqrt(seen.weights)
    basis, target = design.basis, root * seen.y
    target = target - basis @ (basis.T @ target)
    joint = root[:, None] * joint_columns(first, second)
    left = joint - basis @ (basis.T @ joint)
    u, s, _ = np.linalg.svd(left, full_matrices=False)
    kept = s > 1e-8 * math.sqrt(float(seen.weights.sum()))
    if int(kept.sum()) < joint.shape[1]:
        return None
    explained = float(((u[:, kept].T @ target) ** 2).sum())
    squares = float(target @ target) - explained + seen.pure_squares
    degrees = len(seen.y) - design.rank - joint.shape[1] + seen.pure_degrees
    if seen.pure_degrees >= _ENOUGH:
        squares, degrees = seen.pure_squares, seen.pure_degrees
    if degrees < _LEAST or squares <= degrees * (1e-12 * seen.scale) ** 2:
        return None
    return float(f.sf(explained / joint.shape[1] / (squares / degrees), joint.shape[1], degrees))


def _means(first: Factor, second: Factor, varying: Sequence[Factor], seen: Observations) -> Array:
    """Mean of each cell, the other factors at the mix in which they occur."""
    design = additive_design([f for f in varying if f is not first and f is not second], seen.weights)
    shape = (len(first.levels), len(second.levels))
    cell = first.codes * shape[1] + second.codes
    indicators = np.asarray(cell[:, None] == np.arange(1, shape[0] * shape[1])[None, :], np.float64)
    whole = Design(np.hstack([design.matrix, indicators]), seen.weights, {})
    beta, _ = whole.fit(seen.y)
    width = design.matrix.shape[1]
    average = (seen.weights[:, None] * design.matrix).sum(0) / seen.weights.sum()
    return np.asarray(float(average @ beta[:width]) + np.concatenate([[0.0], beta[width:]])).reshape(shape)
