"""Comparisons as findings: each sentence as strong as its runs allow, and no stronger.

A difference is an effect when its adjusted p-value is at most 5 % for the whole study and it is at least a tenth of
the noise of one run; else a tie within the noise. Without a noise estimate it is neither: unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emotion_sweeps.report.comparisons import Comparison, Contrast
from emotion_sweeps.report.confounding import only_at, plain_means, stand_ins
from emotion_sweeps.report.factors import Factor
from emotion_sweeps.report.findings import Finding
from emotion_sweeps.report.interactions import Interaction
from emotion_sweeps.report.multiplicity import FAMILY_WISE, Adjusted
from emotion_sweeps.report.ranking import metric_text
from emotion_sweeps.report.variation import Observations
from emotion_sweeps.report.wording import counted, level_text, listed, plus_minus, rounded

NEGLIGIBLE = 0.1  # of the noise of one run: a smaller difference is no reason to prefer anything
_EVERY_PAIR = 4  # levels: with more, only pairs with the best one are told


class Writer:
    """Writes the findings of one study; knows its metric and which way is better."""

    def __init__(self, metric: str, minimize: bool, seen: Observations, varying: Sequence[Factor]) -> None:
        self._metric, self._sign = metric_text(metric), -1.0 if minimize else 1.0
        self._seen, self._varying = seen, varying

    def findings(self, comparison: Comparison, adjusted: Sequence[Adjusted], joint: Sequence[str]) -> list[Finding]:
        """Everything to be said about one factor.

        Args:
            adjusted: one for each contrast, empty without a noise estimate.
            joint: the factors with which it has an interaction.
        """
        found: list[Finding] = []
        if not adjusted:
            found += [self._unknown(comparison.factor, contrast) for contrast in comparison.contrasts]
        else:
            every = list(zip(comparison.contrasts, adjusted, strict=True))
            pairs = [(contrast, a) for contrast, a in every if not contrast.few]
            found += [self._unknown(comparison.factor, contrast) for contrast, _ in every if contrast.few]
            effects = [pair for pair in pairs if self._is_effect(comparison, *pair)]
            found += [self._effect(comparison, c, a, joint) for c, a in self._told(comparison, effects)]
            found += self._ties(comparison, pairs, effects)
        if comparison.unseen:
            found.append(self._confounded(comparison))
        return found

    def _is_effect(self, comparison: Comparison, contrast: Contrast, adjusted: Adjusted) -> bool:
        large = abs(contrast.difference) >= NEGLIGIBLE * (comparison.deviation or 0.0)
        return adjusted.p_value <= FAMILY_WISE and large and contrast.difference != 0

    def _ends(self, contrast: Contrast) -> tuple[int, int]:
        """The better and the worse level."""
        return (contrast.a, contrast.b) if self._sign * contrast.difference >= 0 else (contrast.b, contrast.a)

    def _told(
        self, comparison: Comparison, effects: list[tuple[Contrast, Adjusted]]
    ) -> list[tuple[Contrast, Adjusted]]:
        if len(comparison.factor.levels) <= _EVERY_PAIR or not effects:
            return effects
        best = self._best(comparison)
        return [(c, a) for c, a in effects if best in (c.a, c.b)] or effects[:1]

    def _best(self, comparison: Comparison) -> int:
        """The level with the best mean difference from the others."""
        score = np.zeros(len(comparison.factor.levels))
        for contrast in comparison.contrasts:
            score[contrast.a] += self._sign * contrast.difference
            score[contrast.b] -= self._sign * contrast.difference
        return int(score.argmax())

    def _half(self, contrast: Contrast, level: float) -> float:
        from scipy.stats import t  # type: ignore[import-untyped]

        return float(t.isf(level / 2, contrast.degrees)) * (contrast.error or 0.0)

    def _over(self, comparison: Comparison, contrast: Contrast) -> str:
        if contrast.n_pairs:
            return f"over {counted(contrast.n_pairs, 'paired run')}"
        runs = counted(int(self._seen.weights.sum()), "run")
        return f"adjusted for the other settings by an additive model of {runs}, as too few differ in it alone"

    def _effect(self, comparison: Comparison, contrast: Contrast, adjusted: Adjusted, joint: Sequence[str]) -> Finding:
        better, worse = self._ends(contrast)
        size, half = abs(contrast.difference), self._half(contrast, adjusted.level)
        names = level_text(comparison.factor, better), level_text(comparison.factor, worse)
        depends = f"; this is an average, it depends on {listed(joint)}" if joint else ""
        verb = "beats" if contrast.n_pairs else "is better than"
        return Finding(
            factor=comparison.factor.name,
            statement=f"{names[0]} {verb} {names[1]} by {plus_minus(size, half)} in {self._metric} "
            f"{self._over(comparison, contrast)}{depends}.",
            kind="effect",
            strength="strong" if adjusted.p_value <= 0.001 else "clear",
            effect=size,
            interval=(size - half, size + half),
            n_pairs=contrast.n_pairs,
            better=comparison.factor.levels[better],
            worse=comparison.factor.levels[worse],
            p_value=adjusted.p_value,
        )

    def _ties(
        self,
        comparison: Comparison,
        pairs: list[tuple[Contrast, Adjusted]],
        effects: list[tuple[Contrast, Adjusted]],
    ) -> list[Finding]:
        """Without any effect the widest difference speaks for all levels; else the levels tied with the best."""
        left = [pair for pair in pairs if pair not in effects]
        if not left:
            return []
        if not effects:
            widest = max(left, key=lambda pair: abs(pair[0].difference))
            return [self._tie(comparison, *widest, all_levels=len(comparison.factor.levels) > 2)]
        best = self._best(comparison)
        return [self._tie(comparison, c, a) for c, a in left if best in (c.a, c.b)]

    def _tie(
        self, comparison: Comparison, contrast: Contrast, adjusted: Adjusted, *, all_levels: bool = False
    ) -> Finding:
        factor = comparison.factor
        better, worse = self._ends(contrast)
        size, half = abs(contrast.difference), self._half(contrast, adjusted.level)
        told = f"{plus_minus(size, half)} in {self._metric} {self._over(comparison, contrast)}"
        if all_levels:
            who = f"{factor.name} {listed(factor.levels)}"
            lead = f"{level_text(factor, better)} is ahead of {level_text(factor, worse)} by only"
            text = f"{who} are tied within the noise: at the widest, {lead} {told}."
        elif adjusted.p_value <= FAMILY_WISE:
            text = f"{level_text(factor, better)} is ahead of {level_text(factor, worse)} by {told}: more than chance, "
            text += "but less than a tenth of the noise of one run, so it decides nothing."
        else:
            text = f"{level_text(factor, better)} and {level_text(factor, worse)} are tied within the noise: {told}."
        return Finding(
            factor=factor.name,
            statement=text,
            kind="tie",
            effect=size,
            interval=(size - half, size + half),
            n_pairs=contrast.n_pairs,
            better=factor.levels[better],
            worse=factor.levels[worse],
            p_value=adjusted.p_value,
        )

    def _unknown(self, factor: Factor, contrast: Contrast) -> Finding:
        better, worse = self._ends(contrast)
        ahead = f"{level_text(factor, better)} is ahead of {level_text(factor, worse)}"
        size = abs(contrast.difference)
        over = f"over {counted(contrast.n_pairs, 'paired run')}" if contrast.n_pairs else "adjusted for the others"
        why = (
            "which is too few to tell"
            if contrast.error is not None
            else ("but without a noise estimate nothing says how much of that is luck")
        )
        return Finding(
            factor=factor.name,
            statement=f"{ahead} by {rounded(size)} in {self._metric} {over}, {why}.",
            kind="unknown",
            effect=size,
            n_pairs=contrast.n_pairs,
            better=factor.levels[better],
            worse=factor.levels[worse],
        )

    def _confounded(self, comparison: Comparison) -> Finding:
        factor = comparison.factor
        others = stand_ins(factor, self._varying)
        means = plain_means(factor, self._seen.y, self._seen.weights)
        order = np.argsort(-self._sign * means)
        shown = ", ".join(f"{level_text(factor, int(i))} {means[i]:.4f}" for i in order[:4])
        tail = ", ..." if len(order) > 4 else ""
        pairs = listed(f"{level_text(factor, a)} against {level_text(factor, b)}" for a, b in comparison.unseen[:3])
        whose = f"For {pairs}: " if comparison.contrasts else ""
        return Finding(
            factor=factor.name,
            statement=f"{whose}{factor.name} is confounded with {listed(others)}: no two runs differ in "
            f"{factor.name} alone, so its averages ({shown}{tail}) say nothing about {factor.name} itself."
            f"{self._sharing(factor)}",
            kind="confounded",
        )

    def _sharing(self, factor: Factor) -> str:
        """What the runs of a level have in common, for factors of few levels."""
        if len(factor.levels) > _EVERY_PAIR:
            return ""
        told = []
        for level in range(len(factor.levels)):
            shared = only_at(factor, level, self._varying)
            runs = int(self._seen.weights[factor.codes == level].sum())
            if shared and 0 < runs < self._seen.weights.sum():
                what = listed(f"{name} {text}" for name, text in shared[:4])
                whom = {1: "The one run", 2: "Both runs"}.get(runs, f"All {runs} runs")
                told.append(f"{whom} with {level_text(factor, level)} also {'has' if runs == 1 else 'have'} {what}.")
        return "".join(f" {text}" for text in told[:3])

    def interaction(self, found: Interaction) -> Finding:
        """Where the difference between two levels changes most over the levels of the other factor."""
        name = f"{found.first.name} x {found.second.name}"
        told, other, means = found.first, found.second, found.means
        if len(told.levels) > len(other.levels):  # the factor of fewer levels is the one whose gap is told
            told, other, means = other, told, means.T
        a, b = _most_changing(means)
        gaps = self._sign * (means[a] - means[b])
        high, low = int(gaps.argmax()), int(gaps.argmin())
        turns = gaps[low] < 0 < gaps[high]
        text = (
            f"{told.name} and {other.name} interact: {level_text(told, a)} against {level_text(told, b)} is worth "
            f"{gaps[high]:+.4f} in {self._metric} at {level_text(other, high)} and {gaps[low]:+.4f} at "
            f"{level_text(other, low)} (positive is better)"
        )
        text += ": which of them is better depends on it." if turns else "."
        return Finding(
            factor=name,
            statement=text,
            kind="interaction",
            strength="strong" if found.p_value <= 0.001 else "clear",
            effect=float(gaps[high] - gaps[low]),
            p_value=found.p_value,
        )

    def constant(self, factor: Factor) -> Finding:
        """A setting that every run shares."""
        return Finding(
            factor=factor.name,
            statement=f"Every run has {factor.name} {factor.levels[0]}, so these runs say nothing about {factor.name}.",
            kind="unknown",
            better=factor.levels[0],
        )


def _most_changing(means: np.ndarray) -> tuple[int, int]:
    """The two rows whose difference varies most over the columns."""
    pairs = [(a, b) for a in range(len(means)) for b in range(a + 1, len(means))]
    return max(pairs, key=lambda pair: float(np.ptp(means[pair[0]] - means[pair[1]])))
