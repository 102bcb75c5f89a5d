"""Families side by side: each model and task by its best configuration, on the test part, beside the baseline.

The best of a family is chosen on validation; its predictions on the test part are scored here and once. A family is on
the quality/cost front when no other is at least as good and as cheap, and better in one of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from emotion_sweeps.report.baselines import NAME, BaselineScore
from emotion_sweeps.report.bootstrap import macro_f1_interval
from emotion_sweeps.report.findings import Across, FamilyRow
from emotion_sweeps.report.ranking import Entry, Ranking
from emotion_sweeps.report.testpart import read_test_part
from emotion_sweeps.report.winner import seconds
from emotion_sweeps.report.wording import listed
from emotion_sweeps.training.metrics import label_metrics


@dataclass(frozen=True)
class _Scored:
    macro_f1: float
    interval: tuple[float, float] | None
    num_texts: int


def families(ranking: Ranking) -> dict[tuple[str, str, str], Entry]:
    """The first entry of each model, task and corpus."""
    first: dict[tuple[str, str, str], Entry] = {}
    for entry in ranking.entries:
        run = entry.best_run
        first.setdefault((run.model or "model unknown", run.task or "task unknown", run.fingerprint or ""), entry)
    return first


def across(ranking: Ranking, baselines: Sequence[BaselineScore]) -> Across:
    """The rows, best first, and what they say."""
    found = families(ranking)
    several_data = len({key[2] for key in found}) > 1
    rows: list[FamilyRow] = []
    problems: list[str] = []
    for (model, task, _), entry in found.items():
        name = ", ".join([model, task] + ([entry.best_run.data_name or "data"] if several_data else []))
        try:
            scored = _score(entry)
        except (ValueError, OSError) as error:
            scored, problem = None, str(error)
            problems.append(problem)
        rows.append(_row(name, entry, scored))
    rows += [_baseline_row(baseline) for baseline in baselines]
    if not found or (len(rows) == 1 and rows[0].test_macro_f1 is None):
        return Across()
    rows = sorted(_with_front(rows), key=lambda row: -(_quality(row, rows) or 0.0))
    return Across(tuple(rows), (*_lines(rows), *problems))


def _score(entry: Entry) -> _Scored | None:
    read = read_test_part(entry.best_run)
    if read is None:
        return None
    gold, predicted = read
    return _Scored(label_metrics(predicted, gold)["macro_f1"], macro_f1_interval(predicted, gold), len(gold))


def _row(name: str, entry: Entry, scored: _Scored | None) -> FamilyRow:
    time = seconds(entry)
    low, high = scored.interval if scored and scored.interval else (None, None)
    return FamilyRow(
        family=name,
        winner=entry.best_run.name,
        validation_macro_f1=entry.mean("macro_f1"),
        test_macro_f1=scored.macro_f1 if scored else None,
        low=low,
        high=high,
        num_test=scored.num_texts if scored else None,
        trainable_parameters=entry.best_run.trainable_parameters,
        minutes=time / 60 if time is not None else None,
        on_front=False,
        note="" if scored else "no predictions on a labelled test part (training.predict_test=true)",
    )


def _baseline_row(baseline: BaselineScore) -> FamilyRow:
    low, high = baseline.test_interval or (None, None)
    return FamilyRow(
        family=NAME,
        winner="",
        validation_macro_f1=baseline.validation.get("macro_f1"),
        test_macro_f1=baseline.test.get("macro_f1") if baseline.test else None,
        low=low,
        high=high,
        num_test=None,
        trainable_parameters=None,
        minutes=baseline.fit_time_s / 60,
        on_front=False,
        note="baseline, not a trial",
    )


def _on_test(rows: Sequence[FamilyRow]) -> bool:
    """Whether all rows can be compared on the test part."""
    return all(row.test_macro_f1 is not None for row in rows)


def _quality(row: FamilyRow, rows: Sequence[FamilyRow]) -> float | None:
    return row.test_macro_f1 if _on_test(rows) else row.validation_macro_f1


def _with_front(rows: Sequence[FamilyRow]) -> list[FamilyRow]:
    """The rows with `on_front` set; a row without a quality or a time is not on it."""
    points = [(quality, row.minutes) for row in rows if (quality := _quality(row, rows)) is not None and row.minutes]

    def beaten(row: FamilyRow) -> bool:
        quality = _quality(row, rows)
        if quality is None or row.minutes is None:
            return True
        return any(
            q >= quality and minutes <= row.minutes and (q > quality or minutes < row.minutes) for q, minutes in points
        )

    return [replace(row, on_front=not beaten(row)) for row in rows]


def _lines(rows: Sequence[FamilyRow]) -> list[str]:
    on_test = _on_test(rows)
    part = "on the test part" if on_test else "on validation, as not every row was scored on a test part"
    if len(rows) < 2:
        return []
    front = [row.family for row in rows if row.on_front]
    lines = [f"On the front of quality (macro-F1 {part}) and time: {listed(front)}."] if front else []
    first, second = rows[0], rows[1]
    if on_test and first.low is not None and second.high is not None:
        apart = first.low > second.high
        verdict = "do not overlap" if apart else "overlap: the order of the two may be the draw of the texts"
        lines.append(f"The intervals of {first.family} and {second.family} {verdict}.")
    return lines
