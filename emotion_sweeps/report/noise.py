"""How much of a difference between two trials is the luck of the seed, as far as the runs can tell.

With replicates: s = pooled standard deviation over all configurations that ran with several seeds, and an entry is
tied with the winner when |difference| <= t(1 - BEST / N (N - 1), df) * s * sqrt(1/n + 1/m): Bonferroni over all pairs
of N configurations, as the winner was picked for being first (`multiplicity`). Without replicates nothing is known.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from emotion_sweeps.report.multiplicity import BEST
from emotion_sweeps.report.ranking import Entry, value_of


@dataclass(frozen=True)
class Noise:
    """The spread between seeds: standard deviation and its degrees of freedom."""

    deviation: float
    degrees: int
    entries: int  # configurations, among which the first was picked

    def tied(self, one: Entry, other: Entry, metric: str) -> bool:
        """Whether the two means cannot be told apart."""
        from scipy.stats import t  # type: ignore[import-untyped]

        first, second = one.mean(metric), other.mean(metric)
        if first is None or second is None:
            return False
        error = self.deviation * math.sqrt(1 / len(one.runs) + 1 / len(other.runs))
        pairs = self.entries * max(self.entries - 1, 1)
        return abs(first - second) <= float(t.isf(BEST / pairs, self.degrees)) * error


def seed_noise(entries: Sequence[Entry], metric: str) -> Noise | None:
    """The pooled spread between seeds, None where every configuration ran once."""
    squares, degrees = 0.0, 0
    for entry in entries:
        values = [value for run in entry.runs if (value := value_of(run, metric)) is not None]
        if len(values) > 1:
            squares += statistics.variance(values) * (len(values) - 1)
            degrees += len(values) - 1
    return Noise(math.sqrt(squares / degrees), degrees, len(entries)) if degrees else None
