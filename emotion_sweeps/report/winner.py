"""The winner: how good and when, how steady at the end, how sure that it is the best, and what is as good but cheaper.

A configuration is ruled out as the best when it is further behind the first than the noise of one run explains:
difference > t(1 - share / N (N - 1), degrees) * s * sqrt(1/n + 1/m), Bonferroni over all pairs of N configurations,
since the first was picked for being first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from emotion_sweeps.report.curves import curve_of
from emotion_sweeps.report.findings import Alternative, NoiseEstimate, Recommendation, Winner
from emotion_sweeps.report.multiplicity import BEST
from emotion_sweeps.report.ranking import Entry, Ranking, metric_text, value_of
from emotion_sweeps.report.results import Point
from emotion_sweeps.report.settings import overrides_between, settings_of
from emotion_sweeps.report.wording import counted, duration, listed

_LAST = 3  # evaluations over which steadiness is judged
_NAMED = 5


def winner_of(ranking: Ranking, noise: NoiseEstimate | None) -> Winner | None:
    """The first of the ranking, None where nothing was ranked."""
    if not ranking.entries:
        return None
    entry, metric = ranking.entries[0], ranking.rule.metric
    run = entry.best_run
    best, final = run.best.get(metric), run.final.get(metric)
    curve = curve_of(run, metric)
    last = curve.values[-_LAST:] if curve else ()
    others = not_ruled_out(ranking, noise)
    values = tuple(v for one in entry.runs if (v := value_of(one, metric)) is not None)
    assert best is not None  # it was ranked by it
    lines = [_best_and_final(best, final, metric, minimize=ranking.rule.minimize)]
    if len(last) > 1:
        lines.append(
            f"Over its last {len(last)} evaluations {metric_text(metric)} stayed within {max(last) - min(last):.4f}."
        )
    lines += [_replicates(entry, values, metric), _certainty(ranking, noise, others)]
    return Winner(
        name=run.name,
        folder=run.folder,
        settings=settings_of(run),
        best=best.value,
        best_epoch=best.epoch,
        final=final.value if final else None,
        final_epoch=final.epoch if final else None,
        stability=max(last) - min(last) if len(last) > 1 else None,
        stability_evaluations=len(last),
        replicate_values=values,
        not_ruled_out=tuple(e.best_run.name for e in others),
        ruling_possible=noise is not None and len(ranking.entries) > 1,
        lines=tuple(lines),
    )


def not_ruled_out(ranking: Ranking, noise: NoiseEstimate | None) -> list[Entry]:
    """The other entries that may be as good as the first; empty without a noise estimate, when nothing is known."""
    if noise is None or len(ranking.entries) < 2:
        return []
    quantile = _quantile(len(ranking.entries), noise.degrees)
    return [e for e in ranking.entries[1:] if _behind(ranking, e) <= quantile * _error(ranking.entries[0], e, noise)]


def _quantile(number: int, degrees: int) -> float:
    from scipy.stats import t  # type: ignore[import-untyped]

    return float(t.isf(BEST / (number * (number - 1)), degrees))


def _error(one: Entry, other: Entry, noise: NoiseEstimate) -> float:
    return noise.deviation * math.sqrt(1 / len(one.runs) + 1 / len(other.runs))


def _behind(ranking: Ranking, entry: Entry) -> float:
    """How much worse than the first, in the metric's unit."""
    metric, sign = ranking.rule.metric, 1.0 if ranking.rule.minimize else -1.0
    first, own = ranking.entries[0].mean(metric), entry.mean(metric)
    assert first is not None and own is not None
    return sign * (own - first)


def _best_and_final(best: Point, final: Point | None, metric: str, *, minimize: bool) -> str:
    when = "" if best.epoch is None else f" after epoch {best.epoch:g}"
    text = f"Best validation {metric_text(metric)} {best.value:.4f}{when}"
    if final is None:
        return f"{text}."
    if final.step == best.step and final.value == best.value:
        return f"{text}, which is its last evaluation: it may not have been trained to the end of its improvement."
    lost = (final.value - best.value) * (1 if minimize else -1)
    until = "" if final.epoch is None else f" after epoch {final.epoch:g}"
    return f"{text}; {final.value:.4f} at the end{until} ({lost:.4f} worse)."


def _replicates(entry: Entry, values: Sequence[float], metric: str) -> str:
    if len(values) < 2:
        return "It ran once, so nothing shows how much of its value is the luck of the seed."
    spread = entry.spread(metric)
    return (
        f"{len(values)} seeds: {', '.join(f'{v:.4f}' for v in values)} (mean {entry.mean(metric):.4f}, standard "
        f"deviation {spread:.4f})."
    )


def _certainty(ranking: Ranking, noise: NoiseEstimate | None, others: Sequence[Entry]) -> str:
    if len(ranking.entries) < 2:
        return "It is the only configuration, so there is nothing that it is better than."
    second = ranking.entries[1]
    gap = f"{_behind(ranking, second):.4f} ahead of {second.best_run.name}"
    if noise is None:
        return f"It is {gap}; without a noise estimate that is no difference that anyone could rely on."
    if not others:
        return f"It is {gap}, beyond the noise of one run ({noise.deviation:.2g}): no other configuration is as good."
    names = [e.best_run.name for e in others[:_NAMED]]
    more = f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else ""
    return (
        f"It is {gap}. Of {counted(len(ranking.entries) - 1, 'other configuration')} {len(others):,} cannot be ruled "
        f"out as equally good: {', '.join(names)}{more}."
    )


def recommend(ranking: Ranking, noise: NoiseEstimate | None) -> Recommendation | None:
    """The winner, and the cheapest configuration that the noise does not put behind it."""
    if not ranking.entries:
        return None
    first = ranking.entries[0]
    statement = f"Run {first.best_run.name}: it ranks first by {ranking.rule.by}."
    if noise is None:
        why = "No cheaper alternative is named: without a noise estimate nothing says which other runs are as good."
        return Recommendation(statement, None, why)
    near = [e for e in not_ruled_out(ranking, noise) if _behind(ranking, e) <= 2 * _error(first, e, noise)]
    cheaper = [(saved, e) for e in near if (saved := _saved(first, e)) is not None]
    if not cheaper:
        return Recommendation(statement, None, "No configuration within the noise of the winner is cheaper.")
    _, entry = min(cheaper, key=lambda pair: (pair[0][0], pair[1].rank))  # the best of those with the fewest
    return Recommendation(statement, _alternative(ranking, entry))


def _saved(first: Entry, entry: Entry) -> tuple[float, float] | None:
    """(parameters, minutes) of `entry` as parts of the first's where it has fewer parameters, or as many and at least
    a tenth less time; None where it is not cheaper."""
    mine, own = first.best_run.trainable_parameters, entry.best_run.trainable_parameters
    parameters = own / mine if mine and own else 1.0
    time_first, time_own = seconds(first), seconds(entry)
    time = time_own / time_first if time_first and time_own else 1.0
    return (parameters, time) if parameters < 1 or (parameters == 1 and time <= 0.9) else None


def seconds(entry: Entry) -> float | None:
    """Mean wall time of the entry's runs."""
    known = [run.wall_time_s for run in entry.runs if run.wall_time_s is not None]
    return sum(known) / len(known) if known else None


def _alternative(ranking: Ranking, entry: Entry) -> Alternative:
    first, run = ranking.entries[0].best_run, entry.best_run
    behind, value = _behind(ranking, entry), entry.mean(ranking.rule.metric)
    assert value is not None
    costs = []
    if first.trainable_parameters and run.trainable_parameters:
        costs.append(f"{run.trainable_parameters:,} instead of {first.trainable_parameters:,} trainable parameters")
    time_first, time_own = seconds(ranking.entries[0]), seconds(entry)
    if time_first and time_own:
        costs.append(f"{duration(time_own)} instead of {duration(time_first)} a run")
    overrides = overrides_between(first, run)
    return Alternative(
        name=run.name,
        folder=run.folder,
        value=value,
        behind=behind,
        trainable_parameters=run.trainable_parameters,
        minutes=time_own / 60 if time_own else None,
        settings=settings_of(run),
        overrides=overrides or "",
        statement=f"Cheaper and within the noise: {run.name}, {behind:.4f} behind in "
        f"{metric_text(ranking.rule.metric)}, {listed(costs)}.",
    )
