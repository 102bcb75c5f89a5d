"""The settings that the ranked trials differ in, as axes: numbers (linear or logarithmic) or categories.

Settings that always change together (alpha = 2 r; a model and its learning rate) are one axis that names them all:
nothing in the runs tells them apart.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emotion_sweeps.report.ranking import Entry
from emotion_sweeps.report.results import RunRow
from emotion_sweeps.report.texts import plain

MAX_PARAMETERS = 10
FEW_LEVELS = 12
MAX_TICKS = 24
_GROUPS = ("lora", "scheduler", "augment", "training", "task", "model", "data")
_NOT_SETTINGS = {"data.fingerprint", "training.resume", "training.predict_test", "training.log_every"}
_LOG_FROM_RATIO = 10.0


@dataclass(frozen=True)
class Parameter:
    """One axis: `values[i]` is entry i's value, None where its run does not say."""

    name: str
    with_names: tuple[str, ...]  # settings that always change together with it
    values: tuple[float | str | None, ...]

    @functools.cached_property
    def numeric(self) -> bool:
        """Whether every known value is a number."""
        return all(isinstance(value, (int, float)) for value in self.values if value is not None)

    @functools.cached_property
    def levels(self) -> list[Any]:
        """The distinct known values, ascending."""
        known = {value for value in self.values if value is not None}
        return sorted(known) if self.numeric else sorted(known, key=str)

    @functools.cached_property
    def logarithmic(self) -> bool:
        """Whether equal factors, not equal differences, should be equally far apart."""
        levels = self.levels
        return self.numeric and levels[0] > 0 and levels[-1] / levels[0] >= _LOG_FROM_RATIO

    @functools.cached_property
    def places(self) -> dict[Any, int]:
        """The place of each level among them."""
        return {level: place for place, level in enumerate(self.levels)}

    def position(self, value: float | str) -> float:
        """Where a value lies on the axis: itself, its decimal logarithm, or its place among the categories."""
        if not self.numeric:
            return float(self.places[value])
        return math.log10(float(value)) if self.logarithmic else float(value)

    @functools.cached_property
    def few(self) -> bool:
        """Whether its levels are so few that each has a place of its own."""
        return not self.numeric or len(self.levels) <= FEW_LEVELS

    def ticks(self) -> list[Any]:
        """The values to write at the axis: every level of few, round numbers for many."""
        if self.few:
            return self.levels[:MAX_TICKS]
        low, high = self.levels[0], self.levels[-1]
        return _round_factors(low, high) if self.logarithmic else _round_steps(low, high)


def _round_factors(low: float, high: float) -> list[float]:
    """1, 10, 100, ... and as many between them as are needed to have three."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [float(f"{factor}e{power}") for power in decades for factor in factors]
        inside = [value for value in found if low <= value <= high]
        if len(inside) >= 3:
            return inside
    return [low, high]


def _round_steps(low: float, high: float) -> list[float]:
    """Three to seven multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(power * f for f in (1, 2, 5, 10) if (high - low) / (power * f) < 7)
    return [float(f"{step * k:.12g}") for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def value_text(value: object) -> str:
    """A value as people write it: `0.05`, `2e-05`, `cosine`."""
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 1e-3:
        return f"{value:.2g}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def varied_parameters(entries: Sequence[Entry], limit: int = MAX_PARAMETERS) -> list[Parameter]:
    """The axes, LoRA's own settings first; at most `limit`."""
    settings = [_settings(entry.best_run) for entry in entries]
    names = sorted({name for one in settings for name in one}, key=_order)
    by_partition: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        if _hidden(name, settings):
            continue
        partition = _partition([one.get(name) for one in settings])
        if max(partition, default=0) > 0:
            by_partition.setdefault(partition, []).append(name)
    return [
        Parameter(
            short(group[0]), tuple(short(name) for name in group[1:]), tuple(one.get(group[0]) for one in settings)
        )
        for group in by_partition.values()
    ][:limit]


def short(name: str) -> str:
    """`lora.r` -> `r`, `scheduler.name` -> `scheduler`; others keep their group unless it says nothing."""
    group, _, key = name.partition(".")
    if key == "name":
        return group
    return plain(key if group in ("lora", "training") else name, 40)


def _settings(run: RunRow) -> dict[str, Any]:
    """Every setting by its dotted path; what the run resolved (alpha from its ratio) goes before what was asked."""
    found: dict[str, Any] = {}
    for group in _GROUPS:
        part = run.config.get(group)
        if isinstance(part, Mapping):
            found |= {f"{group}.{key}": _plain(value) for key, value in part.items()}
    named = {
        "model": run.model,
        "task": run.task,
        "scheduler": run.scheduler,
        "augment": run.augment,
        "data": run.data_name,
    }
    found |= {f"{group}.name": value for group, value in named.items() if value}
    found |= {f"lora.{key}": _plain(value) for key, value in run.lora.items()}
    return {name: value for name, value in found.items() if value is not None}


def _plain(value: Any) -> float | str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value) if math.isfinite(value) and abs(value) < 1e15 else None
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _hidden(name: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether another setting stands for this one: a group's name, or alpha for the ratio that it came from."""
    group, _, key = name.partition(".")
    if name in _NOT_SETTINGS or name == "lora.alpha_ratio":
        return True
    named = {one.get(f"{group}.name") for one in settings}
    return key != "name" and group in ("model", "data", "task") and len(named) > 1


def _partition(values: Sequence[Any]) -> tuple[int, ...]:
    """The same tuple for settings that split the entries alike: (0, 1, 0) for 16, 32, 16 and for a, b, a."""
    seen: dict[Any, int] = {}
    return tuple(seen.setdefault(value, len(seen)) for value in values)


_FIRST = ("lora.r", "lora.alpha", "lora.dropout", "lora.learning_rate", "scheduler.name", "augment.name", "model.name")


def _order(name: str) -> tuple[int, int, str]:
    if name in _FIRST:
        return 0, _FIRST.index(name), name
    group = name.partition(".")[0]
    return 1, _GROUPS.index(group), name
