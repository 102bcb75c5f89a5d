"""The rows of the page's table: every trial of the study and the baseline, with what each column is sorted by.

A cell holds a text to read and, in a column of numbers, the number to sort by; what is missing sorts last in either
direction.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from emotion_sweeps.report.leaderboard import Board, TableRow, data_text, lora_text
from emotion_sweeps.report.markdown import NONE, number
from emotion_sweeps.report.ranking import metric_text
from emotion_sweeps.report.results import COMPLETE, FAILED, PRUNED, RunRow
from emotion_sweeps.report.texts import plain

BASELINE = "baseline"
STATUSES = (COMPLETE, PRUNED, FAILED, BASELINE)


@dataclass(frozen=True)
class Column:
    """A heading; `kind` is a class of its cells: `num` columns stand at the right and sort as numbers."""

    heading: str
    kind: str = ""


@dataclass(frozen=True)
class Cell:
    """What is read, and the number that it is sorted by."""

    text: str
    key: float | None


@dataclass(frozen=True)
class Row:
    """One row; the first cell is the rank, the second the name, which links to `links[0]`."""

    status: str
    cells: list[Cell]
    links: list[str]  # of its run folders, the best first
    place: int | None = None  # 1 to 3 for the medals


def columns(board: Board) -> list[Column]:
    """The headings that this board needs."""
    own = [Column(metric_text(board.score_column), "num")] if board.score_column else []
    model = [Column("model")] if board.several_models else []
    return [
        *(Column("rank", "num rank"), Column("experiment", "name"), *own, Column("best val loss", "num")),
        *(Column("macro-F1", "num"), *model, Column("LoRA", "lora"), Column("scheduler"), Column("data")),
        *(Column("trainable", "num"), Column("minutes", "num"), Column("notes", "notes")),
    ]


def rows(board: Board, out: Path) -> list[Row]:
    """Ranked trials and the baseline in the board's order, then what has no rank.

    Args:
        out: the page's folder, from which run folders are linked.
    """
    entries, several = iter(board.ranking.entries), board.several_models  # asked once: it looks at every row
    found: list[Row] = []
    for position, row in enumerate(board.rows):
        runs = next(entries).runs if row.rank is not None else ()
        found.append(_ranked(board, several, row, position, [link(run.folder, out) for run in runs]))
    without_rank = (*board.ranking.unranked, *board.pruned, *board.failed)
    return [*found, *(_unranked(board, several, run, out) for run in without_rank)]


def link(folder: Path, out: Path) -> str:
    """A relative reference to a folder, whatever characters its name has."""
    try:
        relative = Path(os.path.relpath(folder.resolve(), out.resolve())).as_posix()
    except ValueError:  # another drive
        return folder.resolve().as_uri() + "/"
    quoted = quote(relative, safe="/", errors="surrogateescape")
    # `./` keeps a name such as `javascript:x` from being read as an address of another kind.
    return f"{quoted}/" if quoted.startswith("../") else f"./{quoted}/"


def counts(table: Sequence[Row]) -> list[tuple[str, int]]:
    """How many rows each status has, for the filter; those that occur."""
    numbers = [(status, sum(row.status == status for row in table)) for status in STATUSES]
    return [(status, count) for status, count in numbers if count]


def _ranked(board: Board, several_models: bool, row: TableRow, position: int, links: list[str]) -> Row:
    is_trial = row.rank is not None
    model = ", ".join(part for part in (row.model, row.task) if part)
    own = [Cell(number(row.score, 4, row.score_spread), row.score)] if board.score_column else []
    status = COMPLETE if is_trial else BASELINE
    cells = [
        Cell(f"{row.medal} {row.rank}".strip() if is_trial else NONE, position),
        _text(row.experiment),
        *own,
        Cell(number(row.loss, 4, row.loss_spread), row.loss),
        Cell(number(row.macro_f1, 3, row.macro_f1_spread), row.macro_f1),
        *([_text(model)] if several_models else []),
        *(_text(text) for text in (row.lora, row.scheduler, row.data)),
        _parameters(row.trainable_parameters),
        Cell(number(row.minutes, 1), row.minutes),
        Cell(plain("; ".join(row.notes), 1000), None),
    ]
    return Row(status, cells, links, row.rank if row.rank and row.rank <= 3 else None)


def _unranked(board: Board, several_models: bool, run: RunRow, out: Path) -> Row:
    loss, f1 = run.best_loss, run.best_macro_f1
    minutes = None if run.wall_time_s is None else run.wall_time_s / 60
    model = ", ".join(part for part in (run.model, run.task) if part)
    cells = [
        Cell(NONE, None),
        _text(run.name),
        *([Cell(NONE, None)] if board.score_column else []),
        Cell(number(loss.value if loss else None, 4), loss.value if loss else None),
        Cell(number(f1.value if f1 else None, 3), f1.value if f1 else None),
        *([_text(model)] if several_models else []),
        *(_text(text) for text in (lora_text(run.lora), run.scheduler or "", data_text(run))),
        _parameters(run.trainable_parameters),
        Cell(number(minutes, 1), minutes),
        Cell(plain("; ".join(_why(run)), 1000), None),
    ]
    return Row(run.status, cells, [link(run.folder, out)])


def _why(run: RunRow) -> Iterator[str]:
    """Why a run has no rank."""
    if run.status == COMPLETE:
        yield "finished without the metric that the others are ranked by"
    if run.status == PRUNED:
        last = next(iter(run.final.values()), None)
        yield "stopped by the study" + (f" at step {last.step}" if last and last.step is not None else "")
    if run.status == FAILED:
        yield run.error or "no reason recorded"


def _text(text: str) -> Cell:
    return Cell(plain(text) or NONE, None)


def _parameters(count: int | None) -> Cell:
    return Cell(NONE if count is None else f"{count:,}", count)
