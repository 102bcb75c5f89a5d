"""Range rules in one line each: they raise `UserError` with the config path, the rule, the value and a remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from emotion_sweeps.errors import UserError, did_you_mean


def at_least(path: str, value: float | None, low: float) -> None:
    """`value` (or None) must be finite and >= `low`."""
    if value is not None and not (math.isfinite(value) and value >= low):
        raise UserError(f"{path} must be >= {low}, got {value}")


def positive(path: str, value: float | None) -> None:
    """`value` (or None) must be finite and > 0."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UserError(f"{path} must be > 0, got {value}")


def fraction(path: str, value: float | None, *, low: float = 0.0, below: float = 1.0) -> None:
    """`value` (or None) must lie in [low, below)."""
    if value is not None and not (math.isfinite(value) and low <= value < below):
        raise UserError(f"{path} must be >= {low:g} and < {below:g}, got {value}")


def one_of(path: str, value: object, known: Sequence[str]) -> None:
    """`value` must be one of `known`."""
    if value not in known:
        raise UserError(f"{path} must be one of {', '.join(known)}, got {value}{did_you_mean(value, known)}")
