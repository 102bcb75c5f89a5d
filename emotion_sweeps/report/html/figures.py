"""What all plots share: the calm layout, colours by name, and foreign text that plotly shows as it is.

Colours are CSS variables (`var(--accent)`): the page puts in those of the light, dark or printed look before it draws.
plotly reads a little HTML in its texts (`<br>`, `<a>`, entities), so names and values go through `shown` first.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from emotion_sweeps.report.texts import plain
from emotion_sweeps.tracking.records import jsonl_safe

PLACE_COLOURS = ("var(--first)", "var(--second)", "var(--third)")  # of the first three, in every plot
OTHERS = "var(--others)"
_AXIS: dict[str, Any] = {
    "automargin": True,
    "zeroline": False,
    "linecolor": "var(--line)",
    "tickcolor": "var(--line)",
    "gridcolor": "var(--grid)",
    "tickfont": {"color": "var(--quiet)", "size": 12},
    "title": {"font": {"color": "var(--quiet)", "size": 12}, "standoff": 8},
}


@dataclass(frozen=True)
class View:
    """A choice in the selector above a plot: which of its traces are shown."""

    label: str
    visible: list[bool]


@dataclass(frozen=True)
class Plot:
    """One figure and what the page writes around it."""

    key: str  # of the element's id
    figure: go.Figure
    alt: str  # what it shows, for those who do not see it
    title: str = ""
    views: tuple[View, ...] = ()
    min_width: int = 0  # pixels below which it scrolls in its own box

    def data(self) -> dict[str, Any]:
        """JSON-able: what the page's script draws."""
        figure = self.figure.to_plotly_json()
        return {
            "key": self.key,
            "data": jsonl_safe(figure["data"]),
            "layout": jsonl_safe(figure["layout"]),
            "views": [view.visible for view in self.views],
        }


def shown(text: object, limit: int = 60) -> str:
    """Foreign text that plotly shows literally: no markup, no links, one line, not too long."""
    safe = plain(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return safe.replace("$", "&#36;")  # two of them would be a formula


def figure(traces: Sequence[Any], *, height: int, **layout: Any) -> go.Figure:
    """A figure without template, title and legend, on the page's ground; `xaxis` and `yaxis` add to the calm ones."""
    axes = {axis: _merged(_AXIS, layout.pop(axis, {})) for axis in ("xaxis", "yaxis")}
    axes["xaxis"].setdefault("showgrid", False)
    return go.Figure(
        data=list(traces),
        layout={
            "template": None,
            "height": height,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": "var(--ink)", "size": 13, "family": "Inter, system-ui, sans-serif"},
            "hoverlabel": {"bgcolor": "var(--card)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
            "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
            "hovermode": "closest",
            "showlegend": False,
            **axes,
            **layout,
        },
    )


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = {**merged[key], **value} if isinstance(merged.get(key), dict) else value
    return merged


def place_colour(place: int) -> str:
    """The colour of the trial in the given place, 0 the first."""
    return PLACE_COLOURS[place] if place < len(PLACE_COLOURS) else OTHERS


def calm_range(values: Sequence[float]) -> tuple[list[float] | None, int]:
    """An axis range without far outliers (beyond 3 interquartile ranges), and how many values lie outside it.

    A trial that diverged would press all others into one line. None where nothing lies far out.
    """
    if len(values) < 8:
        return None, 0
    low_quarter, _, high_quarter = statistics.quantiles(values, n=4)
    reach = 3 * (high_quarter - low_quarter)
    inside = [value for value in values if low_quarter - reach <= value <= high_quarter + reach]
    outside = len(values) - len(inside)
    if not outside or not reach:
        return None, 0
    margin = 0.05 * (max(inside) - min(inside))
    return [min(inside) - margin, max(inside) + margin], outside


def spread_over(count: int, wanted: int) -> list[int]:
    """`wanted` indices from 0 to count - 1, evenly apart, both ends among them."""
    if count <= wanted:
        return list(range(count))
    if wanted < 2:
        return [0][:wanted]
    return sorted({round(index * (count - 1) / (wanted - 1)) for index in range(wanted)})
