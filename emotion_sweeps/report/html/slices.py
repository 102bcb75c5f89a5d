"""Slices: the metric over one setting at a time, every trial a point, with the median of each level.

A slice shows what was seen, not what the setting does: the other settings vary as well. At most 800 trials are drawn,
evenly spread over the ranking.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from emotion_sweeps.report.html.figures import Plot, calm_range, figure, shown, spread_over
from emotion_sweeps.report.html.parameters import Parameter, value_text
from emotion_sweeps.report.ranking import Ranking, metric_text

MAX_POINTS = 800


def make_slices(ranking: Ranking, parameters: Sequence[Parameter]) -> tuple[list[Plot], str] | None:
    """One plot a setting, and a note; None where nothing varies."""
    if not parameters or len(ranking.entries) < 2:
        return None
    means = [entry.mean(ranking.rule.metric) for entry in ranking.entries]
    limits, outside = calm_range([mean for mean in means if mean is not None])
    plots = [_slice(index, ranking, parameter, means, limits) for index, parameter in enumerate(parameters)]
    note = "Each point is a trial, the ring is the one that ranks first, a bar is the median of its level."
    note += " The other settings vary too: a slope here is what was seen, not proof of what the setting does."
    if len(ranking.entries) > MAX_POINTS:
        note += f" {MAX_POINTS} of {len(ranking.entries):,} trials are drawn, evenly spread over the ranking."
    if outside:
        note += f" Beyond the axis, far from the others: {outside} (a double click shows them)."
    return plots, note


def _slice(
    index: int, ranking: Ranking, parameter: Parameter, means: Sequence[float | None], limits: list[float] | None
) -> Plot:
    places = [p for p in spread_over(len(means), MAX_POINTS) if parameter.values[p] is not None]
    few = parameter.few
    traces = [_points(ranking, parameter, means, places, few)]
    if few:
        traces.append(_medians(parameter, means))
    if parameter.values[0] is not None:
        traces.append(_winner(parameter, means[0], few))
    metric = metric_text(ranking.rule.metric)
    yaxis: dict[str, Any] = {"title": {"text": metric}, **({"range": limits} if limits else {})}
    return Plot(
        f"slice-{index}",
        figure(traces, height=250, xaxis=_xaxis(parameter, few), yaxis=yaxis),
        f"Scatter plot: {metric} by {parameter.name}.",
        parameter.name + (f" (with {', '.join(parameter.with_names)})" if parameter.with_names else ""),
    )


def _x(parameter: Parameter, value: float | str, few: bool) -> float:
    """Few levels stand evenly apart, as most grids double or halve; many keep their distances."""
    return float(parameter.places[value]) if few else parameter.position(value)


def _points(
    ranking: Ranking, parameter: Parameter, means: Sequence[float | None], places: Sequence[int], few: bool
) -> Any:
    xs, ys, texts = [], [], []
    for place in places:
        value = parameter.values[place]
        assert value is not None
        jitter = 0.17 * math.sin(7.0 * place) if few and len(places) > 12 else 0.0
        xs.append(round(_x(parameter, value, few) + jitter, 4))
        ys.append(means[place])
        name = shown(ranking.entries[place].best_run.name, 48)
        texts.append(f"<b>{place + 1}. {name}</b><br>{shown(parameter.name)} {shown(value_text(value))}")
    crowded = len(places) > 150
    return go.Scatter(
        x=xs,
        y=ys,
        text=texts,
        mode="markers",
        marker={"size": 5 if crowded else 7, "color": "var(--accent)", "opacity": 0.3 if crowded else 0.55},
        hovertemplate="%{text}<br>%{y:.4f}<extra></extra>",
    )


def _medians(parameter: Parameter, means: Sequence[float | None]) -> Any:
    """Over all trials, drawn or not."""
    xs, ys = [], []
    for at, level in enumerate(parameter.levels):
        known = [
            mean for mean, value in zip(means, parameter.values, strict=True) if value == level and mean is not None
        ]
        if len(known) > 2:
            median = statistics.median(known)
            xs += [at - 0.28, at + 0.28, None]
            ys += [median, median, None]
    return go.Scatter(
        x=xs,
        y=ys,
        mode="lines",
        line={"color": "var(--ink)", "width": 2.5},
        hovertemplate="median %{y:.4f}<extra></extra>",
    )


def _winner(parameter: Parameter, mean: float | None, few: bool) -> Any:
    value = parameter.values[0]
    assert value is not None
    return go.Scatter(
        x=[_x(parameter, value, few)],
        y=[mean],
        mode="markers",
        marker={"size": 13, "color": "rgba(0,0,0,0)", "line": {"color": "var(--first)", "width": 2.5}},
        hoverinfo="skip",
    )


def _xaxis(parameter: Parameter, few: bool) -> dict[str, Any]:
    if few:
        levels = parameter.levels
        return {
            "tickvals": list(range(len(levels))),
            "ticktext": [shown(value_text(level), 22) for level in levels],
            "range": [-0.6, len(levels) - 0.4],
        }
    ticks = parameter.ticks()
    return {
        "tickvals": [parameter.position(value) for value in ticks],
        "ticktext": [shown(value_text(value), 22) for value in ticks],
    }
