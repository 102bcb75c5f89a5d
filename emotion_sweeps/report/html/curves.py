"""Learning curves of some trials: loss (validation and training) and macro-F1 over epochs, from metrics.jsonl.

A page cannot draw thousands of curves that anybody could tell apart, and reading as many files takes long: the first
24 of the ranking, 24 spread evenly over the rest and up to 8 pruned trials are read, and the page says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from emotion_sweeps.paths import METRICS_FILE
from emotion_sweeps.report.html.figures import Plot, View, calm_range, figure, place_colour, shown, spread_over
from emotion_sweeps.report.leaderboard import Board
from emotion_sweeps.report.results import RunRow

FIRST, SPREAD, PRUNED = 24, 24, 8
_TRAIN_POINTS = 60
_Points = list[tuple[float, float]]  # epoch, value


@dataclass(frozen=True)
class Curve:
    """One run's curves; a list is empty where the run logged none."""

    run: RunRow
    place: int | None  # in the ranking, 0 the first; None for a pruned trial
    train_loss: _Points
    loss: _Points
    macro_f1: _Points


@dataclass(frozen=True)
class Curves:
    """The plots, and what of the study they show."""

    plots: list[Plot]
    note: str
    views: list[str]


def read_curves(board: Board) -> list[Curve]:
    """The curves of the trials that the page shows, in the order of the ranking; those without any are left out."""
    runs = [entry.best_run for entry in board.ranking.entries]
    rest = runs[FIRST:]
    places = [*range(min(FIRST, len(runs))), *(FIRST + i for i in spread_over(len(rest), SPREAD))]
    chosen = [(runs[place], place) for place in places]
    pruned = [(board.pruned[i], None) for i in spread_over(len(board.pruned), PRUNED)]
    curves = [_read(run, place) for run, place in (*chosen, *pruned)]
    return [curve for curve in curves if curve.loss or curve.train_loss]


def make_curves(board: Board, curves: Sequence[Curve]) -> Curves | None:
    """Two plots with the same selector; None where no run left a curve."""
    if not curves:
        return None
    views = _views(board, curves)
    loss, outside = _loss_plot(curves, views)
    plots = [loss, *([_f1_plot(curves, views)] if any(curve.macro_f1 for curve in curves) else [])]
    total = len(board.ranking.entries) + len(board.pruned)
    note = "Solid: validation, dotted: training (with dropout, and with label smoothing or class weights where set)."
    if len(curves) < total:
        note += f" Curves of {len(curves)} of {total:,} trials are in this page: {_which(board, curves)}."
    if outside:
        note += f" Beyond the axis, far above the others: {outside} (a double click shows all)."
    return Curves(plots, note, [label for label, _ in views])


def _which(board: Board, curves: Sequence[Curve]) -> str:
    first = sum(curve.place is not None and curve.place < FIRST for curve in curves)
    spread = sum(curve.place is not None and curve.place >= FIRST for curve in curves)
    pruned = len(curves) - first - spread
    parts = [f"the first {first}"] if first else []
    parts += [f"{spread} spread evenly over the rest of the ranking"] if spread else []
    parts += [f"{pruned} of {len(board.pruned):,} pruned"] if pruned else []
    return ", ".join(parts)


def _views(board: Board, curves: Sequence[Curve]) -> list[tuple[str, list[bool]]]:
    """The selector's choices: a label, and which curves it shows."""
    places = [curve.place for curve in curves]
    ranked = sum(place is not None for place in places)
    views = [("first 8", [place is not None and place < 8 for place in places])] if ranked > 12 else []
    if ranked > FIRST:
        views.append((f"first {FIRST}", [place is not None and place < FIRST for place in places]))
        views.append(("spread over the ranking", [place == 0 or (place or 0) >= FIRST for place in places]))
    else:
        views.append((f"all {ranked} ranked", [place is not None for place in places]))
    if board.pruned:
        views.append(("the first and pruned ones", [place is None or place == 0 for place in places]))
    return [(label, mask) for label, mask in views if any(mask)]


def _loss_plot(curves: Sequence[Curve], views: Sequence[tuple[str, list[bool]]]) -> tuple[Plot, int]:
    traces, owners = [], []
    for index, curve in _best_on_top(curves):
        if curve.train_loss:
            traces.append(_line(index, curve, curve.train_loss, "training loss %{y:.4f}", dash="dot"))
            owners.append(index)
        if curve.loss:
            traces.append(_line(index, curve, curve.loss, "validation loss %{y:.4f}", markers=True))
            owners.append(index)
    limits, outside = _loss_range(curves)
    axis = {"title": {"text": "loss"}, **({"range": limits} if limits else {})}
    alt = f"Line plot: training and validation loss over epochs, {len(curves)} trials."
    return _plot("curves-loss", "Loss", traces, owners, views, axis, alt), outside


def _loss_range(curves: Sequence[Curve]) -> tuple[list[float] | None, int]:
    """The axis without trials that diverged, and how many those are."""
    highest = [max(value for _, value in (*curve.loss, *curve.train_loss)) for curve in curves]
    limits, outside = calm_range(highest)
    if limits is None:
        return None, 0
    lowest = min(value for curve in curves for _, value in (*curve.loss, *curve.train_loss))
    return [lowest - 0.04 * (limits[1] - lowest), limits[1]], outside


def _f1_plot(curves: Sequence[Curve], views: Sequence[tuple[str, list[bool]]]) -> Plot:
    drawn = [(index, curve) for index, curve in _best_on_top(curves) if curve.macro_f1]
    traces = [_line(i, curve, curve.macro_f1, "validation macro-F1 %{y:.3f}", markers=True) for i, curve in drawn]
    axis = {"title": {"text": "macro-F1"}}
    alt = f"Line plot: validation macro-F1 over epochs, {len(drawn)} trials."
    return _plot("curves-f1", "Macro-F1", traces, [index for index, _ in drawn], views, axis, alt)


def _plot(
    key: str,
    title: str,
    traces: list[Any],
    owners: Sequence[int],
    views: Sequence[tuple[str, list[bool]]],
    yaxis: dict[str, Any],
    alt: str,
) -> Plot:
    made = figure(traces, height=340, xaxis={"title": {"text": "epoch"}, "rangemode": "tozero"}, yaxis=yaxis)
    per_trace = tuple(View(label, [mask[owner] for owner in owners]) for label, mask in views)
    return Plot(key, made, alt, title, per_trace)


def _best_on_top(curves: Sequence[Curve]) -> list[tuple[int, Curve]]:
    """With the best last, because later lines are drawn over earlier ones."""
    last = len(curves)
    return sorted(enumerate(curves), key=lambda item: -(last if item[1].place is None else item[1].place))


def _line(index: int, curve: Curve, points: _Points, what: str, *, dash: str = "solid", markers: bool = False) -> Any:
    place = curve.place
    colour = "var(--pruned)" if place is None else place_colour(place)
    rank = "pruned" if place is None else f"place {place + 1}"
    prominent = place is not None and place < 3
    return go.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="lines+markers" if markers and len(points) <= 20 else "lines",
        name=shown(curve.run.name),
        meta=index,
        line={"color": colour, "width": (1.6 if dash == "dot" else 2.2) if prominent else 1.1, "dash": dash},
        marker={"size": 5 if prominent else 3},
        opacity=(0.75 if dash == "dot" else 1.0) if prominent else 0.55,
        hovertemplate=f"<b>%{{fullData.name}}</b><br>{rank}, epoch %{{x:.2f}}<br>{what}<extra></extra>",
    )


def _read(run: RunRow, place: int | None) -> Curve:
    train: dict[float, tuple[float, float]] = {}
    evals: dict[float, tuple[float, Mapping[str, Any]]] = {}
    for record in _records(run.folder / METRICS_FILE):
        step, epoch, loss = (_number(record.get(key)) for key in ("step", "epoch", "loss"))
        if step is None:
            continue
        x = step if epoch is None else epoch
        if record.get("kind") == "train" and loss is not None:
            train[step] = (x, loss)  # a resumed run tells a step again: the later word counts
        elif record.get("kind") == "eval" and record.get("split") == "validation":
            evals[step] = (x, record)
    in_order = [evals[step] for step in sorted(evals)]
    return Curve(
        run,
        place,
        _thinned([train[step] for step in sorted(train)]),
        [(x, value) for x, record in in_order if (value := _number(record.get("loss"))) is not None],
        [(x, value) for x, record in in_order if (value := _number(record.get("macro_f1"))) is not None],
    )


def _records(path: Path) -> list[Mapping[str, Any]]:
    """The whole lines of a metrics.jsonl; a line that a kill cut short is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    records: list[Mapping[str, Any]] = []
    for line in lines:
        try:
            record = json.loads(line, parse_constant=lambda _: None) if line.strip() else None
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _thinned(points: _Points) -> _Points:
    """At most 60 points, each the mean of its stretch."""
    width = math.ceil(len(points) / _TRAIN_POINTS) or 1
    parts = [points[start : start + width] for start in range(0, len(points), width)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _number(value: Any) -> float | None:
    return (
        float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30 else None
    )
