"""The winner by label: precision, recall and F1 as a heat map, and who is taken for whom where one label is right.

From its result.json (`per_label`) and predictions/validation.jsonl; validation, with the weights that were kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from emotion_sweeps.paths import PREDICTIONS_DIR, RESULT_FILE
from emotion_sweeps.report.html.figures import Plot, figure, shown
from emotion_sweeps.report.results import RunRow

_SCALE = [[0.0, "var(--seq-0)"], [0.5, "var(--seq-1)"], [0.75, "var(--seq-2)"], [1.0, "var(--seq-4)"]]
_SCORES = ("precision", "recall", "f1")
MAX_LABELS = 80


@dataclass(frozen=True)
class LabelRow:
    """One label's figures on the validation part."""

    label: str
    support: int
    scores: tuple[float, float, float]  # precision, recall, F1


def read_labels(run: RunRow) -> list[LabelRow]:
    """The winner's labels, the most frequent first; empty where its result.json has none."""
    try:
        content = json.loads((run.folder / RESULT_FILE).read_text(encoding="utf-8"), parse_constant=lambda _: None)
        rows = content.get("per_label") or []
        found = [_label_row(row) for row in rows if isinstance(row, Mapping)]
    except (OSError, ValueError, TypeError, AttributeError):
        return []
    return sorted((row for row in found if row), key=lambda row: -row.support)[:MAX_LABELS]


def _label_row(row: Mapping[str, Any]) -> LabelRow | None:
    scores = [row.get(name) for name in _SCORES]
    if not all(isinstance(score, (int, float)) and not isinstance(score, bool) for score in scores):
        return None
    support = row.get("support")
    first, second, third = (float(score) for score in scores if score is not None)
    return LabelRow(str(row.get("label")), support if isinstance(support, int) else 0, (first, second, third))


def labels_plot(rows: Sequence[LabelRow]) -> Plot:
    """A heat map with its numbers written in, one row a label."""
    names = [f"{shown(row.label, 24)}  <span style='font-size:11px'>{row.support:,}</span>" for row in rows]
    heads = ["precision", "recall", "F1"]
    heat = _heat([list(row.scores) for row in rows])
    heat.hovertext = [
        [
            f"{shown(row.label, 24)} ({row.support:,} texts): {head} {score:.3f}"
            for head, score in zip(heads, row.scores, strict=True)
        ]
        for row in rows
    ]
    heat.texttemplate = "%{z:.2f}"
    made = _square(heat, heads, names, height=90 + 28 * len(rows))
    return Plot("labels", made, "Heat map: precision, recall and F1 of each label.", "By label")


def read_confusion(run: RunRow) -> list[list[int]] | None:
    """Counts of (right label, predicted label), None unless every validation text has exactly one of each."""
    names = run.label_names
    if not 1 < len(names) <= MAX_LABELS:
        return None
    position = {name: index for index, name in enumerate(names)}
    counts = [[0] * len(names) for _ in names]
    try:
        text = (run.folder / PREDICTIONS_DIR / "validation.jsonl").read_text(encoding="utf-8")
        for line in filter(str.strip, text.split("\n")):
            row = json.loads(line)
            (gold,), (predicted,) = row["gold"], row["predicted"]
            counts[position[gold]][position[predicted]] += 1
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return counts if any(map(any, counts)) else None


def confusion_plot(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Plot:
    """Shares of each right label's texts, row by row, with the counts written in."""
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    shown_names = [shown(name, 24) for name in names]
    heat = _heat(shares)
    heat.text = [[f"{count:,}" if count else "" for count in row] for row in counts]
    heat.texttemplate = "%{text}" if len(names) <= 16 else None
    heat.hovertext = [
        [f"right {gold}, predicted {guess}: {count:,} texts" for guess, count in zip(shown_names, row, strict=True)]
        for gold, row in zip(shown_names, counts, strict=True)
    ]
    made = _square(heat, shown_names, shown_names, height=130 + 30 * len(names))
    made.update_xaxes(title_text="predicted", tickangle=-40)
    made.update_yaxes(title_text="right")
    return Plot(
        "confusion", made, "Heat map: right against predicted label.", "Confusion", min_width=180 + 34 * len(names)
    )


def _heat(values: list[list[float]]) -> Any:
    return go.Heatmap(
        z=values,
        zmin=0,
        zmax=1,
        colorscale=_SCALE,
        xgap=2,
        ygap=2,
        showscale=False,
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _square(heat: Any, columns: Sequence[str], rows: Sequence[str], *, height: int) -> go.Figure:
    """Places are numbers and names are written beside them, so that no name is taken for a date or a number."""
    heat.x, heat.y = list(range(len(columns))), list(range(len(rows)))
    bare = {"showline": False, "ticks": "", "showgrid": False, "fixedrange": True}
    return figure(
        [heat],
        height=height,
        xaxis={**bare, "side": "top", "tickvals": heat.x, "ticktext": list(columns)},
        yaxis={**bare, "autorange": "reversed", "tickvals": heat.y, "ticktext": list(rows)},
    )
