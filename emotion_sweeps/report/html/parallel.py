"""Parallel coordinates: one line a trial across every setting that varies, to the metric at the right, better upwards.

Drawn as broken lines, four traces by how good the trials are, because plotly's own parallel coordinates need WebGL and
code made at run time, which the page's policy forbids (and paper does not show). At most 240 lines, evenly spread over
the ranking beyond the first 40.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from emotion_sweeps.report.html.figures import Plot, View, figure, shown, spread_over
from emotion_sweeps.report.html.parameters import Parameter, value_text
from emotion_sweeps.report.ranking import Ranking, metric_text

_FIRST, _LINES = 40, 240
_CLASSES = (  # the best so many of the trials, and how they are drawn
    ("best tenth", 0.10, "var(--seq-4)", 1.3, 0.75),
    ("best quarter", 0.25, "var(--seq-3)", 1.2, 0.7),
    ("better half", 0.50, "var(--seq-2)", 1.0, 0.5),
    ("all", 1.00, "var(--seq-1)", 1.0, 0.65),
)
_JITTER = 0.035


def make_parallel(ranking: Ranking, parameters: Sequence[Parameter]) -> tuple[Plot, str] | None:
    """The plot and a note on what it shows; None where nothing varies or less than three trials ranked."""
    if not parameters or len(ranking.entries) < 3:
        return None
    drawn = _drawn(len(ranking.entries))
    axes = [_Axis.of(parameter) for parameter in parameters] + [_Axis.of_metric(ranking)]
    traces, reach = [], []
    for label, share, colour, width, opacity in reversed(_classes(len(ranking.entries))):
        members = [place for place in drawn if _class_of(place, len(ranking.entries)) == label]
        if members:
            traces.append(_trace(ranking, axes, members, colour=colour, width=width, opacity=opacity))
            reach.append(share)
    traces.append(_trace(ranking, axes, [0], colour="var(--first)", width=3.0, opacity=1.0))
    views = tuple(
        View(label, [*(own <= share for own in reach), True])
        for label, share, *_ in reversed(_classes(len(ranking.entries)))
    )
    plot = Plot(
        "parallel",
        _figure(traces, axes),
        f"Parallel coordinates: {', '.join(axis.title for axis in axes)}; one line a trial.",
        views=views if len(views) > 1 else (),
        min_width=112 * len(axes),
    )
    return plot, _note(ranking, parameters, len(drawn))


class _Axis:
    """One vertical axis: heights from 0 to 1, by entry, and the ticks beside it."""

    def __init__(self, title: str, heights: list[float | None], ticks: list[tuple[float, str]]) -> None:
        self.title, self.heights, self.ticks = title, heights, ticks

    @classmethod
    def of(cls, parameter: Parameter) -> _Axis:
        levels = parameter.levels
        low, high = parameter.position(levels[0]), parameter.position(levels[-1])
        # Many trials share a level: a shift by place, the same on every axis, keeps their lines apart.
        shift = _JITTER if parameter.few else 0.0
        span = (high - low) or 1.0
        heights = [
            None if value is None else (parameter.position(value) - low) / span + shift * math.sin(7.0 * place)
            for place, value in enumerate(parameter.values)
        ]
        ticks = [((parameter.position(v) - low) / span, shown(value_text(v), 14)) for v in parameter.ticks()]
        return cls(parameter.name, heights, ticks)

    @classmethod
    def of_metric(cls, ranking: Ranking) -> _Axis:
        """The metric, cut at 2.5 times where three quarters of the trials are: one that diverged presses nothing."""
        means = [entry.mean(ranking.rule.metric) for entry in ranking.entries]
        best = means[0]
        assert best is not None
        away = [abs(mean - best) if mean is not None else None for mean in means]
        known = sorted(value for value in away if value is not None)
        typical = known[int(0.75 * (len(known) - 1))]
        reach = min(known[-1], 2.5 * typical) or known[-1] or 1.0
        sign = 1.0 if ranking.rule.minimize else -1.0
        ticks = [(1 - part, f"{best + sign * reach * part:.3f}") for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
        return cls(
            metric_text(ranking.rule.metric), [None if v is None else 1 - min(v / reach, 1.0) for v in away], ticks
        )


def _classes(count: int) -> tuple[tuple[str, float, str, float, float], ...]:
    """With few trials a tenth is nobody: halves and quarters only."""
    return _CLASSES if count >= 20 else _CLASSES[1:] if count >= 8 else _CLASSES[3:]


def _class_of(place: int, count: int) -> str:
    return next(label for label, share, *_ in _classes(count) if place < max(1, share * count) or share == 1.0)


def _drawn(count: int) -> list[int]:
    rest = spread_over(max(0, count - _FIRST), _LINES - _FIRST)
    return [*range(min(count, _FIRST)), *(_FIRST + index for index in rest)]


def _trace(ranking: Ranking, axes: Sequence[_Axis], places: Sequence[int], **line: Any) -> Any:
    xs: list[float | None] = []
    ys: list[float | None] = []
    names: list[str] = []
    for place in places:
        xs += [*range(len(axes)), None]
        ys += [*(axis.heights[place] for axis in axes), None]
        names += [f"{place + 1}. {shown(ranking.entries[place].best_run.name, 48)}"] * (len(axes) + 1)
    return go.Scatter(
        x=xs,
        y=[None if y is None else round(y, 4) for y in ys],
        text=names,
        mode="lines",
        line={"color": line["colour"], "width": line["width"]},
        opacity=line["opacity"],
        hovertemplate="%{text}<extra></extra>",
    )


def _figure(traces: list[Any], axes: Sequence[_Axis]) -> Any:
    last = len(axes) - 1
    annotations: list[dict[str, Any]] = [
        {"x": x, "y": y, "text": text, "xanchor": "left" if x == last else "right", "xshift": 6 if x == last else -6}
        for x, axis in enumerate(axes)
        for y, text in axis.ticks
    ]
    titles: list[dict[str, Any]] = [
        {"x": x, "y": 1.11, "text": f"<b>{shown(axis.title, 18)}</b>", "font": {"color": "var(--ink)", "size": 12}}
        for x, axis in enumerate(axes)
    ]
    quiet = {"color": "var(--quiet)", "size": 11}
    shared: dict[str, Any] = {"showarrow": False, "font": quiet, "bgcolor": "var(--veil)"}
    return figure(
        traces,
        height=420,
        xaxis={"visible": False, "range": [-0.45, last + 0.5], "fixedrange": True},
        yaxis={"visible": False, "range": [-0.08, 1.16], "fixedrange": True},
        annotations=[{**shared, **one} for one in (*annotations, *titles)],
        shapes=[
            {"type": "line", "x0": x, "x1": x, "y0": -0.04, "y1": 1.04, "line": {"color": "var(--line)", "width": 1}}
            for x in range(len(axes))
        ],
    )


def _note(ranking: Ranking, parameters: Sequence[Parameter], lines: int) -> str:
    metric = metric_text(ranking.rule.metric)
    note = "The strong line is the trial that ranks first; the stronger the blue of a line, the better its trial."
    note += f" {metric[:1].upper()}{metric[1:]} is better upwards; trials far behind are drawn at its foot."
    together = [f"{p.name} with {', '.join(p.with_names)}" for p in parameters if p.with_names]
    if together:
        note += f" Always changed together, so that the runs cannot tell them apart: {'; '.join(together)}."
    if lines < len(ranking.entries):
        note += f" {lines} of {len(ranking.entries):,} trials are drawn: the first {_FIRST}, then evenly spread."
    return note
