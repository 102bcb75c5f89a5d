"""The order of the trials, and the rule that it follows.

Trials of one objective are ordered by it: validation loss by default, the lowest first. Losses of different tasks,
class weightings, smoothings, models or validation texts are not on one scale (a trial trained with `pos_weight` is
miscalibrated on purpose: its plain NLL looks worse while its macro-F1 is better); as soon as trials differ in one of
these they are ordered by macro-F1. Seeds are replicates: runs that differ in nothing else are one entry, ranked by its
mean. Both rules take a run's best evaluation.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emotion_sweeps.report.results import COMPLETE, Point, RunRow
from emotion_sweeps.training.metrics import BETTER

# Metrics in label space, which mean the same for every task, weighting and model.
COMPARABLE = tuple(name for name in BETTER if name not in ("loss", "token_accuracy", "invalid_answers"))
NOT_LEARNED = ("tracking", "sweep", "hardware", "name", "seed")  # parts of a config that seeds may differ in


@dataclass(frozen=True)
class Rule:
    """What the trials are ordered by, and why."""

    metric: str
    why: str

    @property
    def minimize(self) -> bool:
        """Whether lower is better."""
        return BETTER[self.metric] == "minimize"

    @property
    def by(self) -> str:
        """The rule in words: `best validation loss`."""
        return f"best validation {metric_text(self.metric)}"


@dataclass(frozen=True)
class Entry:
    """One configuration in the ranking: one run, or several that differ in their seed alone."""

    rank: int
    runs: tuple[RunRow, ...]  # best first

    @property
    def best_run(self) -> RunRow:
        """The run that stands for the entry: its name, folder and kept weights."""
        return self.runs[0]

    def mean(self, metric: str) -> float | None:
        """The mean over the runs of their best evaluation of `metric`; None where a run has none."""
        values = [value_of(run, metric) for run in self.runs]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known and len(known) == len(values) else None

    def spread(self, metric: str) -> float | None:
        """The standard deviation over seeds; None for a single run."""
        known = [value for run in self.runs if (value := value_of(run, metric)) is not None]
        return statistics.stdev(known) if len(known) > 1 else None


@dataclass(frozen=True)
class Ranking:
    """The ordered entries, and the complete runs that have nothing to be ordered by."""

    rule: Rule
    entries: list[Entry]
    unranked: list[RunRow]


def rank(runs: Sequence[RunRow]) -> Ranking:
    """Order the complete runs among `runs`; equal means share a rank."""
    complete = [run for run in runs if run.status == COMPLETE]
    rule = choose_rule(complete)
    ranked = [run for run in complete if value_of(run, rule.metric) is not None]
    unranked = [run for run in complete if value_of(run, rule.metric) is None]
    entries = order(replicates(ranked), rule.metric)
    return Ranking(rule, entries, unranked)


def order(groups: Sequence[Sequence[RunRow]], metric: str) -> list[Entry]:
    """Entries by their mean of `metric`, best first; within an entry the best run first."""
    sign = 1.0 if BETTER[metric] == "minimize" else -1.0

    def key(run: RunRow) -> tuple[float, int, str]:
        value = value_of(run, metric)
        assert value is not None
        number = run.number if run.number is not None else -1
        return sign * value, number, run.name

    sorted_groups = sorted(
        (tuple(sorted(group, key=key)) for group in groups),
        key=lambda group: (statistics.fmean(key(run)[0] for run in group), key(group[0])[1:]),
    )
    means = [statistics.fmean(key(run)[0] for run in group) for group in sorted_groups]
    ranks = _competition_ranks(means)
    return [Entry(place, group) for place, group in zip(ranks, sorted_groups, strict=True)]


def _competition_ranks(values: Sequence[float]) -> list[int]:
    """1, 2, 2, 4 for ascending values with a tie."""
    ranks: list[int] = []
    for index, value in enumerate(values):
        ranks.append(ranks[-1] if index and value == values[index - 1] else index + 1)
    return ranks


def choose_rule(runs: Sequence[RunRow]) -> Rule:
    """The common objective where the runs are on one scale, else macro-F1."""
    objectives = sorted({run.objective_metric for run in runs if run.objective_metric in BETTER} - {None}, key=str)
    if len(objectives) > 1:
        return Rule("macro_f1", f"the trials have different objectives ({_listed(str(o) for o in objectives)})")
    objective = str(objectives[0]) if objectives else "loss"
    if objective in COMPARABLE:
        return Rule(objective, "it is the objective of every trial")
    differ = differing_aspects(runs)
    if differ:
        return Rule(
            "macro_f1",
            f"the trials differ in {_listed(differ)}, so their {metric_text(objective)} is not on one scale",
        )
    same = "every trial has the same task, class weighting, label smoothing and model"
    return Rule(objective, f"it is the objective, and {same}")


def differing_aspects(runs: Sequence[RunRow]) -> list[str]:
    """The settings that put the runs' losses on different scales, in words."""
    return [name for name, of in _ASPECTS.items() if len({of(run) for run in runs}) > 1]


def _task_setting(run: RunRow, key: str) -> Any:
    task = run.config.get("task")
    return task.get(key) if isinstance(task, Mapping) else None


def _weighting(run: RunRow) -> Any:
    weighting = _task_setting(run, "weighting")
    return (weighting, _task_setting(run, "weight_cap")) if weighting not in (None, "none") else None


_ASPECTS: Mapping[str, Callable[[RunRow], Any]] = {
    "task": lambda run: run.task,
    "class weighting": lambda run: str(_weighting(run)),
    "label smoothing": lambda run: str(_task_setting(run, "label_smoothing") or 0),
    "model": lambda run: run.model,
    "labels": lambda run: run.label_names,
    "validation texts": lambda run: run.validation_fingerprint or (run.data_name, run.num_validation),
}


def replicates(runs: Sequence[RunRow]) -> list[list[RunRow]]:
    """Runs grouped by configuration, one run a seed; a run without a config stands alone."""
    groups: dict[tuple[str, int], list[RunRow]] = {}
    for index, run in enumerate(runs):
        identity = _identity(run) or f"alone {index}"
        # A second run of the same seed is no replicate: it is the same run again, and says nothing about noise.
        again = 0
        while any(other.seed == run.seed for other in groups.get((identity, again), ())):
            again += 1
        groups.setdefault((identity, again), []).append(run)
    return list(groups.values())


def _identity(run: RunRow) -> str | None:
    if not run.config:
        return None
    learned = {key: value for key, value in run.config.items() if key not in NOT_LEARNED}
    return json.dumps([learned, run.fingerprint], sort_keys=True, default=str)


def value_of(run: RunRow, metric: str) -> float | None:
    """The run's best evaluation of `metric`."""
    point: Point | None = run.best.get(metric)
    return None if point is None else point.value


def metric_text(metric: str) -> str:
    """A metric as people write it: `macro_f1` -> `macro-F1`."""
    words = {"macro_f1": "macro-F1", "micro_f1": "micro-F1", "macro_f1_at_half": "macro-F1 at threshold .5"}
    return words.get(metric, metric.replace("_", " "))


def _listed(words: Any) -> str:
    """`a`, `a and b`, `a, b and c`."""
    parts = list(words)
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
