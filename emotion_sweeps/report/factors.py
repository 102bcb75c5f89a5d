"""What varied: one `Factor` for each setting that differs between the ranked configurations, with a code per entry.

Rank, alpha, dropout, scheduler, learning rate, augmentation and model come first, then whatever else in the configs
differs. Settings that only restate another one (a model's path, a head's rate that is ten times the adapter's) are left
out. A number that takes more than eight values is cut into ranges of equal counts; its exact values still adjust.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_sweeps.report.ranking import NOT_LEARNED, Entry
from emotion_sweeps.report.results import RunRow, finite_number
from emotion_sweeps.report.texts import plain

MAX_LEVELS = 8  # more numbers than this are cut into ranges
MAX_NAMED_LEVELS = 40  # more names than this cannot be compared with anything
_RANGES = 4
_MAIN = ("rank", "alpha", "dropout", "scheduler", "learning rate", "augmentation", "model")
# Parts of a config that the main factors stand for, or that name the option that they come with.
_COVERED = ("lora.r", "lora.alpha", "lora.dropout", "lora.learning_rate", "scheduler.name", "augment.name", "model.")
_WITHIN = {"scheduler": "scheduler.", "augmentation": "augment.", "model": "model.", "task": "task.", "data": "data."}


@dataclass(frozen=True, eq=False)
class Factor:
    """One setting over all entries."""

    name: str
    levels: tuple[str, ...]  # in natural order
    codes: NDArray[np.int64]  # (num_entries,)
    exact: NDArray[np.float64] | None = None  # (num_entries,) where `levels` are ranges: the numbers themselves

    @property
    def constant(self) -> bool:
        """Whether every entry has the same level."""
        return len(self.levels) < 2


def factors_of(entries: Sequence[Entry]) -> list[Factor]:
    """The main factors (constant ones too) and every other setting that varies, without restatements."""
    runs = [entry.best_run for entry in entries]
    columns = _main_columns(runs)
    main = [made for name, values in columns.items() if (made := _factor(name, values)) is not None]
    main += [made for name, values in _identity_columns(runs).items()
             if (made := _factor(name, values)) is not None and not made.constant]  # fmt: skip
    found = [factor for factor in main if not factor.constant]
    for name, values in _further_columns(runs).items():
        made = _factor(name, values)
        if made is None or made.constant or any(_restates(made, other) for other in found):
            continue
        found.append(made)
        main.append(made)
    return main


def _main_columns(runs: Sequence[RunRow]) -> dict[str, list[Any]]:
    """The settings that every sweep is about. Where alpha was given as a multiple of the rank, the multiple counts."""
    columns: dict[str, list[Any]] = {
        "rank": [run.lora.get("r") for run in runs],
        "alpha": [run.lora.get("alpha") for run in runs],
        "dropout": [run.lora.get("dropout") for run in runs],
        "scheduler": [run.scheduler for run in runs],
        "learning rate": [run.lora.get("learning_rate") for run in runs],
        "augmentation": [run.augment for run in runs],
        "model": [run.model for run in runs],
    }
    ratios = [_part(run.config, "lora").get("alpha_ratio") for run in runs]
    given = [_part(run.config, "lora").get("alpha") for run in runs]
    if len({str(r) for r in ratios}) > 1 and not any(isinstance(a, (int, float)) for a in given):
        columns = {("alpha / rank" if k == "alpha" else k): (ratios if k == "alpha" else v) for k, v in columns.items()}
    return columns


def _identity_columns(runs: Sequence[RunRow]) -> dict[str, list[Any]]:
    """Task and texts: what a run was about rather than how it was tuned."""
    data = [run.data_name for run in runs]
    texts = [run.fingerprint for run in runs]
    if len(set(texts)) > len(set(data)):
        data = [f"{name or 'data'} ({(text or 'unknown')[:8]})" for name, text in zip(data, texts, strict=True)]
    return {"task": [run.task for run in runs], "data": data}


def _further_columns(runs: Sequence[RunRow]) -> dict[str, list[Any]]:
    """Every other key of the resolved configs that takes more than one value, and of `lora` where there is none."""
    flat = [_flat(run.config) | {f"lora.{k}": _plain(v) for k, v in run.lora.items()} for run in runs]
    counted: Counter[str] = Counter(key for row in flat for key in row)
    columns: dict[str, list[Any]] = {}
    for key in sorted(counted):
        if key.startswith(_COVERED) or key.split(".")[0] in NOT_LEARNED or key in ("task.name", "data.name"):
            continue
        values = [row.get(key) for row in flat]
        if any(value != values[0] for value in values):
            columns[key] = values
    return columns


def _part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = config.get(key)
    return part if isinstance(part, Mapping) else {}


def _flat(part: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in part.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = _plain(value)
    return out


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float)) else json.dumps(value, default=str)


def _factor(name: str, values: Sequence[Any]) -> Factor | None:
    """The factor of a column, None where it says nothing (all missing, or a name of its own for nearly every run)."""
    if all(value is None for value in values):
        return None
    numbers = [finite_number(value) for value in values]
    if all(number is not None for number in numbers):
        exact = np.array(numbers, np.float64)
        distinct = np.unique(exact)
        if len(distinct) > MAX_LEVELS:
            return _ranges(name, exact)
        codes = np.searchsorted(distinct, exact)
        return Factor(name, tuple(number_text(v) for v in distinct), codes.astype(np.int64))
    texts = [_level_text(value) for value in values]
    levels = sorted(set(texts))
    if len(levels) > MAX_NAMED_LEVELS or (len(levels) > MAX_LEVELS and len(levels) > len(values) / 3):
        return None
    position = {level: index for index, level in enumerate(levels)}
    return Factor(name, tuple(levels), np.array([position[text] for text in texts], np.int64))


def _level_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    number = finite_number(value)
    if number is not None:
        return number_text(number)
    return "none" if value is None else plain(value)


def number_text(value: float) -> str:
    """A level as people write it: 16, 0.05, 1e-05."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.6g}"


def _ranges(name: str, exact: NDArray[np.float64]) -> Factor:
    """Four ranges with about equally many entries each."""
    edges = np.unique(np.quantile(exact, np.linspace(0, 1, _RANGES + 1)))
    codes = np.clip(np.searchsorted(edges, exact, side="right") - 1, 0, len(edges) - 2)
    present, codes = np.unique(codes, return_inverse=True)
    levels = tuple(f"{number_text(edges[i])} to {number_text(edges[i + 1])}" for i in present)
    return Factor(name, levels, codes.astype(np.int64), exact)


def _restates(new: Factor, old: Factor) -> bool:
    """Whether `new` is an option's own setting, or a fixed multiple of `old`, and so no setting of its own."""
    prefix = _WITHIN.get(old.name)
    if prefix is not None and new.name.startswith(prefix):
        return determines(old, new)
    if old.name == "learning rate" and new.name == "lora.head_learning_rate":
        return determines(old, new) or _proportional(new, old)
    return old.name in ("alpha", "alpha / rank", "rank") and new.name in ("lora.alpha", "lora.alpha_ratio")


def _proportional(one: Factor, other: Factor) -> bool:
    if one.exact is None or other.exact is None:
        return False
    ratio = one.exact / other.exact
    return bool(np.allclose(ratio, ratio[0], rtol=1e-6))


def determines(first: Factor, second: Factor) -> bool:
    """Whether knowing the level of `first` is knowing the level of `second`."""
    pairs = set(zip(first.codes.tolist(), second.codes.tolist(), strict=True))
    return len(pairs) == len(first.levels)
