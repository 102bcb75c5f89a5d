"""What a study optimises: named metrics and their directions, and a trial's values read from what it returned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from emotion_sweeps.config.schema import LOWER_IS_BETTER
from emotion_sweeps.errors import UserError, did_you_mean

UNNAMED = "value"  # of an app whose config has no objective.metric


class NonFiniteObjective(ArithmeticError):
    """A trial ended with an objective that is no finite number: it diverged."""


@dataclass(frozen=True)
class Objectives:
    """Metrics and directions, in the order of Optuna's values."""

    metrics: tuple[str, ...]
    directions: tuple[str, ...]

    def describe(self) -> str:
        """`minimize loss, maximize macro_f1`."""
        return ", ".join(f"{d} {m}" for m, d in zip(self.metrics, self.directions, strict=True))

    def values_of(self, returned: Any, reported: Iterable[str]) -> tuple[float, ...]:
        """The values in what a trial returned: a number, a sequence in order, or a mapping by name.

        Raises:
            UserError: a metric is missing; the message names those there are.
            NonFiniteObjective: a value is not finite.
        """
        values = self._pick(returned)
        for metric, value in zip(self.metrics, values, strict=True):
            if not math.isfinite(value):
                names = ", ".join(sorted(reported)) or metric
                raise NonFiniteObjective(f"{metric} is {value}; the metrics there are: {names}")
        return values

    def _pick(self, returned: Any) -> tuple[float, ...]:
        if isinstance(returned, Mapping):
            missing = [m for m in self.metrics if m not in returned]
            if missing and not (len(returned) == len(self.metrics) == 1):
                raise UserError(
                    f"objective.metric={missing[0]}: the trial returned {', '.join(sorted(map(str, returned)))}"
                    f"{did_you_mean(missing[0], map(str, returned))}; take one of them"
                )
            returned = [returned[m] for m in self.metrics] if not missing else list(returned.values())
        items = list(returned) if isinstance(returned, Sequence) and not isinstance(returned, str) else [returned]
        if len(items) != len(self.metrics):
            raise UserError(
                f"the study has {len(self.metrics)} objectives ({', '.join(self.metrics)}) and the trial "
                f"returned {len(items)} values; return one for each, in this order or as a dict"
            )
        try:
            return tuple(float(item) for item in items)
        except (TypeError, ValueError):
            raise UserError(f"a trial must return its objective as a number, got {returned!r}") from None


def read_objectives(cfg: DictConfig, direction: Any) -> Objectives:
    """The objectives of `objective.metric` (a name or a list of names) and of `hydra.sweeper.direction`, where given.

    Raises:
        UserError: the direction contradicts what is known of the metric, or their numbers differ.
    """
    named = OmegaConf.select(cfg, "objective.metric")
    asked = [_name(d) for d in _listed(direction)]
    if named is None:
        directions = asked or ["minimize"]
        names = [UNNAMED] if len(directions) == 1 else [f"{UNNAMED}_{i}" for i in range(len(directions))]
        return Objectives(tuple(names), tuple(directions))
    metrics = [str(m) for m in _listed(named)]
    known = ["minimize" if m in LOWER_IS_BETTER else "maximize" for m in metrics]
    if asked and len(asked) != len(metrics):
        raise UserError(
            f"hydra.sweeper.direction has {len(asked)} entries and objective.metric {len(metrics)}; "
            "give as many, or leave the direction out"
        )
    for metric, right, wrong in zip(metrics, known, asked, strict=False):
        if right != wrong:
            raise UserError(
                f"hydra.sweeper.direction={wrong} contradicts objective.metric={metric}, which is to be "
                f"{right}d; leave the direction out"
            )
    return Objectives(tuple(metrics), tuple(known))


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if OmegaConf.is_list(value) or isinstance(value, (list, tuple)) else [value]


def _name(direction: Any) -> str:
    text = str(getattr(direction, "name", direction))
    if text not in ("minimize", "maximize"):
        raise UserError(
            f"hydra.sweeper.direction must be minimize or maximize, got {text}"
            f"{did_you_mean(text, ('minimize', 'maximize'))}"
        )
    return text


def finished_values(result: Mapping[str, Any], objectives: Objectives) -> tuple[float, ...] | None:
    """The values in the `result.json` of a trial that ended well, None where it does not hold them."""
    if result.get("status") != "complete":
        return None
    own, best = result.get("objective") or {}, result.get("best") or {}
    found = []
    for metric in objectives.metrics:
        value = own.get("value") if own.get("metric") == metric else (best.get(metric) or {}).get("value")
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return None
        found.append(float(value))
    return tuple(found)


def read_result(folder: Path) -> dict[str, Any]:
    """`result.json` of a run folder; empty where there is none or it was never finished."""
    import json

    from emotion_sweeps.paths import RESULT_FILE

    try:
        result = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) else {}
