"""A run's settings as short texts, and the overrides that lead from one configuration to another."""

from __future__ import annotations

import json
from typing import Any

from emotion_sweeps.report.factors import number_text
from emotion_sweeps.report.ranking import NOT_LEARNED
from emotion_sweeps.report.results import RunRow, finite_number
from emotion_sweeps.report.texts import plain

_SHOWN = ("r", "alpha", "dropout", "learning_rate", "head_learning_rate", "target_modules")
_TITLES = {
    "r": "rank",
    "learning_rate": "learning rate",
    "head_learning_rate": "head learning rate",
    "target_modules": "target modules",
}


def settings_of(run: RunRow) -> tuple[tuple[str, str], ...]:
    """(name, value) of what a reader wants to know first."""
    rows: list[tuple[str, Any]] = [("model", run.model), ("task", run.task)]
    rows += [(_TITLES.get(key, key), run.lora.get(key)) for key in _SHOWN]
    rows += [("scheduler", run.scheduler), ("augmentation", run.augment), ("data", run.data_name)]
    training = run.config.get("training")
    if isinstance(training, dict):
        rows += [("epochs", training.get("epochs")), ("batch size", training.get("global_batch_size"))]
    return tuple((name, _text(value)) for name, value in rows if value is not None)


def _text(value: Any) -> str:
    number = finite_number(value)
    if number is not None:
        return number_text(number)
    return plain("+".join(map(str, value)) if isinstance(value, list) else value)


def overrides_between(start: RunRow, end: RunRow) -> str | None:
    """Hydra overrides that turn the config of `start` into that of `end`; None where a config is missing or the two
    differ in what an override cannot say safely."""
    if not start.config or not end.config:
        return None
    parts = []
    first, second = _leaves(start.config), _leaves(end.config)
    if first.keys() != second.keys():
        return None
    for key, value in second.items():
        if first[key] == value or key.split(".")[0] in NOT_LEARNED:
            continue
        text = json.dumps(value)
        if not (isinstance(value, (int, float, bool)) or value is None or text[1:-1].replace("_", "").isalnum()):
            return None
        parts.append(f"{key}={text if not isinstance(value, str) else value}")
    return " ".join(parts)


def _leaves(part: Any, prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in part.items():
        if isinstance(value, dict) and value:
            out |= _leaves(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
