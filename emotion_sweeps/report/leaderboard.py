"""The board: ranked rows with their notes, the baseline in its place, and what a reader must know before believing it.

Values stay numbers here; `markdown`, `terminal` and `csv_table` write them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from emotion_sweeps.report.baselines import NAME, BaselineScore
from emotion_sweeps.report.caveats import board_caveats
from emotion_sweeps.report.ranking import COMPARABLE, Entry, Ranking, rank
from emotion_sweeps.report.results import FAILED, PRUNED, Point, RunRow, finite_number

MEDALS = {1: "🥇", 2: "🥈", 3: "🥉"}


@dataclass(frozen=True)
class TableRow:
    """One row of the board; `rank` is None for a baseline, which is no trial."""

    rank: int | None
    experiment: str
    loss: float | None
    macro_f1: float | None
    data: str
    score: float | None  # the metric that the board is ordered by
    loss_spread: float | None = None
    macro_f1_spread: float | None = None
    score_spread: float | None = None
    seeds: int = 1
    model: str = ""
    task: str = ""
    lora: str = ""
    scheduler: str = ""
    trainable_parameters: int | None = None
    minutes: float | None = None
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None

    @property
    def medal(self) -> str:
        """A medal for the first three."""
        return MEDALS.get(self.rank or 0, "")


@dataclass(frozen=True)
class Board:
    """Everything that a rendering shows."""

    ranking: Ranking
    rows: list[TableRow]
    headline: list[str]
    caveats: list[str]
    failed: list[RunRow]
    pruned: list[RunRow]
    test: dict[str, float] | None  # the winner's, scored here and once
    baselines: list[BaselineScore]

    @property
    def winner(self) -> Entry | None:
        """The entry that ranks first."""
        return self.ranking.entries[0] if self.ranking.entries else None

    @cached_property
    def several_models(self) -> bool:
        """Whether a column must say which model and task a row is of."""
        return len({(row.model, row.task) for row in self.rows if row.rank is not None}) > 1

    @property
    def score_column(self) -> str | None:
        """The metric of a column of its own: the ranking's, where neither loss nor macro-F1 is it."""
        metric = self.ranking.rule.metric
        return None if metric in ("loss", "macro_f1") else metric


def make_board(
    runs: Sequence[RunRow],
    *,
    baselines: Sequence[BaselineScore] = (),
    test: dict[str, float] | None = None,
    problems: Sequence[str] = (),
) -> Board:
    """Rank `runs` and say what the ranking can and cannot carry.

    Args:
        problems: what was not as it should be when the runs were read; shown among the caveats.
    """
    ranking = rank(runs)
    rows = [_entry_row(entry, ranking) for entry in ranking.entries]
    for baseline in baselines:
        _place_baseline(rows, baseline, ranking)
    return Board(
        ranking=ranking,
        rows=rows,
        headline=_headline(ranking, baselines),
        caveats=[*board_caveats(ranking, baselines), *problems],
        failed=[run for run in runs if run.status == FAILED],
        pruned=[run for run in runs if run.status == PRUNED],
        test=test,
        baselines=list(baselines),
    )


def _entry_row(entry: Entry, ranking: Ranking) -> TableRow:
    run, metric = entry.best_run, ranking.rule.metric
    times = [one.wall_time_s for one in entry.runs if one.wall_time_s is not None]
    return TableRow(
        rank=entry.rank,
        experiment=run.name,
        loss=entry.mean("loss"),
        macro_f1=entry.mean("macro_f1"),
        score=entry.mean(metric),
        loss_spread=entry.spread("loss"),
        macro_f1_spread=entry.spread("macro_f1"),
        score_spread=entry.spread(metric),
        seeds=len(entry.runs),
        model=run.model or "",
        task=run.task or "",
        lora=lora_text(run.lora),
        scheduler=run.scheduler or "",
        data=data_text(run),
        trainable_parameters=run.trainable_parameters,
        minutes=sum(times) / 60 if times else None,
        notes=_notes(entry),
        folder=run.folder,
    )


def lora_text(lora: Mapping[str, Any]) -> str:
    """`r=24, alpha=64, dropout=0.10`, with what differs from plain LoRA on all linear layers behind it."""
    r, alpha, dropout = (finite_number(lora.get(key)) for key in ("r", "alpha", "dropout"))
    targets = lora.get("target_modules")
    parts = [f"{name}={value:g}" for name, value in (("r", r), ("alpha", alpha)) if value is not None]
    if dropout is not None:
        parts.append(f"dropout={dropout:.2f}" if round(dropout, 2) == dropout else f"dropout={dropout:g}")
    if targets not in (None, "all-linear"):
        parts.append(f"targets={'+'.join(map(str, targets)) if isinstance(targets, list) else targets}")
    parts += [name for key, name in (("use_rslora", "rsLoRA"), ("use_dora", "DoRA")) if lora.get(key) is True]
    return ", ".join(parts)


def data_text(run: RunRow) -> str:
    """The corpus, and how it was augmented."""
    parts = [run.data_name, run.augment if run.augment not in (None, "none") else None]
    return " + ".join(part for part in parts if part)


def _notes(entry: Entry) -> list[str]:
    run = entry.best_run
    notes = [f"mean of {len(entry.runs)} seeds"] if len(entry.runs) > 1 else []
    if run.stand_in:
        notes.append("stand-in with random weights: its scores mean nothing")
    kept, kept_f1, best_f1 = _any(run.kept), run.kept.get("macro_f1"), run.best_macro_f1
    if kept and kept.epoch is not None and kept.step != _step(_any(run.final)):
        notes.append(f"kept epoch {kept.epoch:g}{_of_epochs(run)}")
    if kept_f1 and best_f1 and best_f1.value > kept_f1.value:
        where = "" if best_f1.epoch is None else f" (epoch {best_f1.epoch:g})"
        notes.append(f"best macro-F1{where} is not of the kept weights, which have {kept_f1.value:.3f}")
    if run.stopped_early:
        notes.append("stopped early")
    invalid = run.kept.get("invalid_answers")
    if invalid and invalid.value > 0:
        notes.append(f"{invalid.value:.1%} of its answers name no valid label")
    return notes


def _any(points: Mapping[str, Point]) -> Point | None:
    """Any metric of an evaluation: they share step and epoch."""
    return next(iter(points.values()), None)


def _step(point: Point | None) -> int | None:
    return None if point is None else point.step


def _of_epochs(run: RunRow) -> str:
    last = _any(run.final)
    return "" if last is None or last.epoch is None else f" of {last.epoch:g}"


def _place_baseline(rows: list[TableRow], baseline: BaselineScore, ranking: Ranking) -> None:
    """Put the baseline below as many trials as beat it; it has no rank, because it is no trial."""
    metric = ranking.rule.metric if ranking.rule.metric in COMPARABLE else "macro_f1"
    value = baseline.validation.get(metric)
    beaten_by = sum(
        (mean := entry.mean(metric)) is not None and value is not None and mean > value for entry in ranking.entries
    )
    trials = [index for index, row in enumerate(rows) if row.rank is not None]
    position = trials[beaten_by] if beaten_by < len(trials) else len(rows)
    rows.insert(
        position,
        TableRow(
            rank=None,
            experiment=NAME,
            loss=baseline.validation.get("loss"),
            macro_f1=baseline.validation.get("macro_f1"),
            score=value if metric == ranking.rule.metric else None,
            data=baseline.data_name,
            minutes=baseline.fit_time_s / 60,
            notes=["baseline, not a trial"],
        ),
    )


def _headline(ranking: Ranking, baselines: Sequence[BaselineScore]) -> list[str]:
    """The winner, and whether the trials beat the baseline."""
    if not ranking.entries:
        return ["No trial finished, so there is nothing to rank."]
    winner, metric = ranking.entries[0], ranking.rule.metric
    number = len(ranking.entries)
    value = winner.mean(metric)
    lines = [
        f"{winner.best_run.name} ranks first of {number} trial{'s' * (number > 1)} by {ranking.rule.by}, {value:.4f}."
    ]
    return lines + [_against(baseline, ranking) for baseline in baselines]


def _against(baseline: BaselineScore, ranking: Ranking) -> str:
    """How many trials on the baseline's corpus beat it, and whether the winner is among them."""
    entries = [entry for entry in ranking.entries if entry.best_run.fingerprint == baseline.fingerprint]
    score = baseline.validation["macro_f1"]
    beating = [entry for entry in entries if (mean := entry.mean("macro_f1")) is not None and mean > score]
    what = f"the {NAME} baseline on {baseline.data_name} (macro-F1 {score:.3f})"
    if not beating:
        return f"No trial beats {what}: as trained here, LoRA gains nothing over it."
    line = f"{len(beating)} of {len(entries)} trials beat {what}"
    if entries and ranking.entries[0] in entries and ranking.entries[0] not in beating:
        line += "; the one that ranks first does not"
    lost = [e for e in beating if (kept := e.best_run.kept.get("macro_f1")) is not None and kept.value <= score]
    if lost:
        line += f"; {len(lost)} of them only by an evaluation whose weights were not kept"
    return line + "."
