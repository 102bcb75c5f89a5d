"""Validation curves read back from metrics.jsonl; what is torn or missing is left out, never raised."""

from __future__ import annotations

import json
from collections.abc import Mapping

from emotion_sweeps.paths import METRICS_FILE
from emotion_sweeps.report.findings import Curve
from emotion_sweeps.report.results import RunRow, finite_number

_MOST_BYTES = 64 * 2**20


def curve_of(run: RunRow, metric: str) -> Curve | None:
    """The run's evaluations of `metric` on the validation part in the order of their steps, None without any."""
    path = run.folder / METRICS_FILE
    points: dict[float, tuple[float, float]] = {}
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if '"eval"' not in line:
                    continue
                point = _point(line, metric)
                if point is not None:
                    points[point[0]] = point[1:]
    except OSError:
        return None
    if not points:
        return None
    ordered = [points[step] for step in sorted(points)]
    return Curve(run.name, metric, tuple(epoch for epoch, _ in ordered), tuple(value for _, value in ordered))


def _point(line: str, metric: str) -> tuple[float, float, float] | None:
    """(step, epoch, value) of a validation record."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, Mapping) or record.get("kind") != "eval" or record.get("split") != "validation":
        return None
    step, epoch, value = (finite_number(record.get(key)) for key in ("step", "epoch", metric))
    if step is None or value is None:
        return None
    return step, step if epoch is None else epoch, value
