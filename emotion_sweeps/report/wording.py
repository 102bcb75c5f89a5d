"""Numbers and levels in words, the same in every sentence of the report."""

from __future__ import annotations

import math
from collections.abc import Iterable

from emotion_sweeps.report.factors import Factor

_SPEAKS_FOR_ITSELF = ("scheduler", "augmentation", "model", "task", "data")


def level_text(factor: Factor, level: int) -> str:
    """A level as the subject of a sentence: `linear`, `rank 24`."""
    text = factor.levels[level]
    return text if factor.name in _SPEAKS_FOR_ITSELF and text != "none" else f"{factor.name} {text}"


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    parts = list(words)
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def rounded(value: float, half: float | None = None) -> str:
    """A value to the digits that its uncertainty leaves meaningful: two of `half`, or four decimals."""
    return f"{value:.{_decimals(half)}f}"


def plus_minus(value: float, half: float) -> str:
    """`0.060 ± 0.020`."""
    return f"{rounded(value, half)} ± {rounded(half, half)}"


def _decimals(half: float | None) -> int:
    if half is None or not math.isfinite(half) or half <= 0:
        return 4
    return max(0, min(8, 1 - math.floor(math.log10(half))))


def counted(number: int, word: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """`40 s`, `12.5 min`, `6.6 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
