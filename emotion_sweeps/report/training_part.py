"""How the runs trained: improvement, overfitting, time, and what pruned and failed trials cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from emotion_sweeps.report.curves import curve_of
from emotion_sweeps.report.findings import Curve, Training
from emotion_sweeps.report.ranking import Ranking, metric_text
from emotion_sweeps.report.results import COMPLETE, FAILED, PRUNED, RunRow
from emotion_sweeps.report.wording import counted, duration

_CURVES = 5


def training_of(ranking: Ranking, runs: Sequence[RunRow]) -> Training:
    """The section's sentences and the curves of the first few of the board."""
    metric, minimize = ranking.rule.metric, ranking.rule.minimize
    curves = [curve for entry in ranking.entries[:_CURVES] if (curve := curve_of(entry.best_run, metric))]
    complete = [run for run in runs if run.status == COMPLETE]
    hours = {status: _hours([run for run in runs if run.status == status]) for status in (COMPLETE, PRUNED, FAILED)}
    lines = [
        _improvement(ranking, curves, minimize=minimize),
        _overfitting(complete, metric, minimize=minimize),
        _stopped(complete),
        _times(complete),
        _cost(runs, PRUNED, hours),
        _cost(runs, FAILED, hours),
    ]
    known = [value for value in hours.values() if value is not None]
    return Training(
        lines=tuple(line for line in lines if line),
        curves=tuple(curves),
        total_hours=sum(known) if known else None,
        pruned_hours=hours[PRUNED],
        failed_hours=hours[FAILED],
    )


def _hours(runs: Sequence[RunRow]) -> float | None:
    known = [run.wall_time_s for run in runs if run.wall_time_s is not None]
    return sum(known) / 3600 if known else None


def _improvement(ranking: Ranking, curves: Sequence[Curve], *, minimize: bool) -> str | None:
    """From the winner's first evaluation to its best."""
    if not curves or not ranking.entries or curves[0].name != ranking.entries[0].best_run.name:
        return None
    curve = curves[0]
    if len(curve.values) < 2:
        return "The winner was evaluated once, so how it improved is not known."
    best = (min if minimize else max)(range(len(curve.values)), key=lambda i: curve.values[i])
    first, top = curve.values[0], curve.values[best]
    part = f" ({abs(top - first) / abs(first):.1%})" if first else ""
    text = (
        f"The winner's {metric_text(curve.metric)} went from {first:.4f} after epoch {curve.epochs[0]:g} to "
        f"{top:.4f} after epoch {curve.epochs[best]:g}: {abs(top - first):.4f}{part} better."
    )
    if best == 0:
        return f"The winner was at its best at its first evaluation, {first:.4f} after epoch {curve.epochs[0]:g}."
    if best == len(curve.values) - 1:
        text += " Its best is its last: it had not stopped improving."
    return text


def _overfitting(runs: Sequence[RunRow], metric: str, *, minimize: bool) -> str | None:
    """Best against final evaluation over all complete runs."""
    sign = 1 if minimize else -1
    lost = [
        sign * (final.value - best.value)
        for run in runs
        if (best := run.best.get(metric)) is not None and (final := run.final.get(metric)) is not None
    ]
    if not lost:
        return None
    worse = [value for value in lost if value > 0]
    name = metric_text(metric)
    if not worse:
        return f"No run ended worse than its best evaluation in {name}: no overfitting seen, and no room for stopping."
    return (
        f"{len(worse):,} of {counted(len(lost), 'run')} ended worse than their best evaluation in {name}, by "
        f"{statistics.median(worse):.4f} in the median and {max(worse):.4f} at most."
    )


def _stopped(runs: Sequence[RunRow]) -> str | None:
    number = sum(run.stopped_early for run in runs)
    return f"{number:,} of {counted(len(runs), 'run')} stopped early." if number else None


def _times(runs: Sequence[RunRow]) -> str | None:
    known = [run.wall_time_s for run in runs if run.wall_time_s is not None]
    if not known:
        return None
    total = f"{counted(len(known), 'finished run')} took {duration(sum(known))} in all"
    if len(known) == 1:
        return f"{total}."
    return f"{total}: {duration(statistics.median(known))} in the median, {duration(max(known))} at most."


def _cost(runs: Sequence[RunRow], status: str, hours: dict[str, float | None]) -> str | None:
    """What the runs of a status cost, as a part of all time spent."""
    number = sum(run.status == status for run in runs)
    if not number:
        return None
    spent, total = hours[status], sum(value for value in hours.values() if value is not None)
    what = f"{counted(number, f'{status} run')}"
    if spent is None:
        return f"{what} left no time behind, so what {'it' if number == 1 else 'they'} cost is not known."
    return f"{what} cost {duration(spent * 3600)}, {spent / total:.0%} of all time." if total else None
