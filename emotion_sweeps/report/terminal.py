"""The board in the terminal: a rich table that fits the width, plain lines where there is no terminal."""

from __future__ import annotations

from typing import IO

from emotion_sweeps.report.build import Report
from emotion_sweeps.report.leaderboard import Board
from emotion_sweeps.report.markdown import cells, columns
from emotion_sweeps.report.texts import plain

_NUMBERS = ("rank", "best val loss", "macro-F1", "trainable", "minutes")
_PLAIN_WIDTH = 180  # of a log or a pipe, which has no width of its own


def print_report(report: Report, *, file: IO[str] | None = None, width: int | None = None) -> None:
    """Show the board, its caveats and the paths written.

    Args:
        file: where to; standard output by default.
        width: columns; by default the terminal's, or enough for one line a row where there is none.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, width=width, highlight=False, emoji=False)
    if width is None and not console.is_terminal:
        console = Console(file=file, width=_PLAIN_WIDTH, highlight=False, emoji=False)
    board = report.board
    for line in board.headline:
        console.print(Text(plain(line, 1000), style="bold"))
    if board.rows:
        console.print(_table(board, narrow=console.width < 120))
        console.print(Text(f"Ranked by {board.ranking.rule.by}, because {plain(board.ranking.rule.why, 500)}."))
    for heading, items in (
        ("Read this first", board.caveats),
        ("Pruned", [run.name for run in board.pruned]),
        ("Failed", [f"{run.name}: {run.error or 'no reason recorded'}" for run in board.failed]),
    ):
        if items:
            console.print(Text(f"\n{heading}", style="bold"))
        for item in items:
            console.print(Text(f"- {plain(item, 500)}"))
    console.print(Text("\nWrote " + ", ".join(str(path) for path in report.paths)), soft_wrap=True)


def _table(board: Board, *, narrow: bool) -> object:
    """The markdown's columns; a narrow terminal goes without the costs and the notes."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heads = columns(board)
    shown = [i for i, head in enumerate(heads) if not (narrow and head in ("trainable", "minutes", "notes"))]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    for i in shown:
        table.add_column(heads[i], justify="right" if heads[i] in _NUMBERS else "left", overflow="fold")
    for row in board.rows:
        texts = cells(board, row)
        table.add_row(*(Text(plain(texts[i])) for i in shown), style="bold" if row.rank == 1 else None)
    return table
