"""The patterns of a study: factors, noise, marginal means and findings, from the ranked configurations.

Settings that always move together are compared as one and named as confounded. Interactions that are beyond the noise
join the model that the noise is estimated from. One pass over the factors; some 50 fits of the additive model at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emotion_sweeps.report.comparisons import Comparison, compare
from emotion_sweeps.report.confounding import moves_with
from emotion_sweeps.report.factors import Factor, factors_of
from emotion_sweeps.report.findings import Finding, Marginals, NoiseEstimate
from emotion_sweeps.report.interactions import Interaction, interactions_of
from emotion_sweeps.report.marginals import marginals_of
from emotion_sweeps.report.multiplicity import Adjusted, adjust
from emotion_sweeps.report.ranking import Entry
from emotion_sweeps.report.statements import Writer
from emotion_sweeps.report.variation import Observations, noise_of, observe
from emotion_sweeps.report.wording import listed

_ORDER = ("effect", "interaction", "tie", "confounded", "unknown")


@dataclass(frozen=True)
class Patterns:
    """What was compared and what came of it."""

    factors: tuple[Factor, ...]  # those that vary, settings that move together as one
    single: tuple[Factor, ...]  # those that vary, each on its own
    seen: Observations
    noise: NoiseEstimate | None
    noise_text: str
    findings: tuple[Finding, ...]
    marginals: tuple[Marginals, ...]


def find_patterns(entries: Sequence[Entry], metric: str, *, minimize: bool) -> Patterns:
    """Compare the levels of everything that varied between `entries`."""
    seen = observe(entries, metric)
    every = factors_of(entries)
    single = [factor for factor in every if not factor.constant]
    varying, together = _merged(single)
    joint = interactions_of(varying, seen)
    noise, noise_text = noise_of(seen, varying, np.hstack([j.columns for j in joint]) if joint else None)
    comparisons = [compare(factor, varying, seen, noise) for factor in varying]
    writer = Writer(metric, minimize, seen, varying)
    findings: list[Finding] = []
    for comparison, adjusted in zip(comparisons, _adjusted(comparisons), strict=True):
        findings += writer.findings(comparison, adjusted, _partners(comparison.factor, joint))
    findings += [writer.interaction(found) for found in joint]
    findings += together
    findings += [writer.constant(factor) for factor in every if factor.constant] if len(seen.y) > 1 else []
    findings.sort(key=lambda f: (_ORDER.index(f.kind), f.p_value if f.p_value is not None else 1.0))
    marginals = tuple(marginals_of(factor, varying, seen, noise) for factor in varying)
    return Patterns(tuple(varying), tuple(single), seen, noise, noise_text, tuple(findings), marginals)


def _merged(varying: Sequence[Factor]) -> tuple[list[Factor], list[Finding]]:
    """Factors with the same split of the runs become one, and a finding says that they cannot be told apart."""
    left, merged, findings = list(varying), [], []
    while left:
        first = left.pop(0)
        names = moves_with(first, [first, *left])
        mates = [other for other in left if other.name in names]
        left = [other for other in left if other.name not in names]
        merged.append(_as_one([first, *mates]) if mates else first)
        findings += [
            Finding(
                mate.name,
                f"{mate.name} is confounded with {listed([f.name for f in (first, *mates) if f is not mate])}: they "
                "never vary independently, so nothing tells their effects apart.",
                "confounded",
            )
            for mate in (first, *mates)
            if mates
        ]
    return merged, findings


def _as_one(factors: Sequence[Factor]) -> Factor:
    first = factors[0]
    at = [int(np.flatnonzero(first.codes == level)[0]) for level in range(len(first.levels))]
    levels = tuple(" / ".join(f.levels[int(f.codes[i])] for f in factors) for i in at)
    return Factor(" / ".join(f.name for f in factors), levels, first.codes, first.exact)


def _adjusted(comparisons: Sequence[Comparison]) -> list[list[Adjusted]]:
    """Adjusted p-values for each comparison; an empty list where nothing could be tested."""
    families = [comparison.family for comparison in comparisons]
    tested = iter(adjust([family for family in families if family is not None]))
    return [next(tested) if family is not None else [] for family in families]


def _partners(factor: Factor, joint: Sequence[Interaction]) -> list[str]:
    pairs = [(j.first.name, j.second.name) for j in joint if factor is j.first or factor is j.second]
    return [second if first == factor.name else first for first, second in pairs]
