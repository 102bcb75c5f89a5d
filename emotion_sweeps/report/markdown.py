"""The board as leaderboard.md; every foreign text is escaped where it enters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emotion_sweeps.report.findings import Analysis
from emotion_sweeps.report.leaderboard import Board, TableRow
from emotion_sweeps.report.ranking import metric_text
from emotion_sweeps.report.results import RunRow
from emotion_sweeps.report.sections import analysis_sections
from emotion_sweeps.report.texts import markdown as escaped

NONE = "–"
_TEST_SHOWN = ("macro_f1", "micro_f1", "accuracy", "jaccard")


def number(value: float | None, digits: int, spread: float | None = None) -> str:
    """A value with its spread over seeds, or a dash."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    return text if spread is None else f"{text} ± {spread:.{digits}f}"


def columns(board: Board) -> list[str]:
    """The headings that this board needs."""
    own = [metric_text(board.score_column)] if board.score_column else []
    model = ["model"] if board.several_models else []
    return [
        *("rank", "experiment", *model, *own, "best val loss", "LoRA config", "scheduler", "data", "macro-F1"),
        *("trainable", "minutes", "notes"),
    ]


def cells(board: Board, row: TableRow) -> list[str]:
    """A row's texts, not yet escaped, in the order of `columns`."""
    own = [number(row.score, 4, row.score_spread)] if board.score_column else []
    model = [", ".join(part for part in (row.model, row.task) if part) or NONE] if board.several_models else []
    return [
        f"{row.medal} {row.rank}".strip() if row.rank else NONE,
        row.experiment,
        *model,
        *own,
        number(row.loss, 4, row.loss_spread),
        row.lora or NONE,
        row.scheduler or NONE,
        row.data or NONE,
        number(row.macro_f1, 3, row.macro_f1_spread),
        f"{row.trainable_parameters:,}" if row.trainable_parameters is not None else NONE,
        number(row.minutes, 1),
        "; ".join(row.notes),
    ]


def render(board: Board, folders: Sequence[Path], best_config: str | None, analysis: Analysis | None = None) -> str:
    """The whole file.

    Args:
        folders: where the runs were read.
        best_config: the command that runs the winner's configuration again, None where there is no winner.
        analysis: what stands below the board.
    """
    sections = [
        ["# Leaderboard"],
        *([escaped(line, 1000)] for line in board.headline),
        _table(board) if board.rows else [],
        [
            f"Ranked by {board.ranking.rule.by}, because {escaped(board.ranking.rule.why, 500)}. "
            "Loss and macro-F1 are each the best over a run's evaluations."
        ]
        if board.ranking.entries
        else [],
        _test(board),
        _bullets("## Read this first", board.caveats),
        *(analysis_sections(analysis) if analysis else []),
        _winner(board, best_config),
        _bullets("## Pruned", [_pruned(run) for run in board.pruned]),
        _bullets("## Failed", [f"{run.name}: {run.error or 'no reason recorded'}" for run in board.failed]),
        ["Read from " + ", ".join(escaped(folder) for folder in folders) + "."],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _table(board: Board) -> list[str]:
    heads = columns(board)
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in board.rows:
        lines.append("| " + " | ".join(escaped(cell) for cell in cells(board, row)) + " |")
    return lines


def _bullets(heading: str, items: Sequence[str]) -> list[str]:
    return [heading, "", *(f"- {escaped(item, 1000)}" for item in items)] if items else []


def _pruned(run: RunRow) -> str:
    last = next(iter(run.final.values()), None)
    reached = [f"at step {last.step}"] if last is not None and last.step is not None else []
    if run.best_loss is not None:
        reached.append(f"best validation loss {run.best_loss.value:.4f}")
    if run.best_macro_f1 is not None:
        reached.append(f"macro-F1 {run.best_macro_f1.value:.3f}")
    return f"{run.name}: stopped by the study {', '.join(reached)}".rstrip()


def _test(board: Board) -> list[str]:
    if board.test is None or board.winner is None:
        return []
    shown = ", ".join(f"{metric_text(m)} {board.test[m]:.3f}" for m in _TEST_SHOWN if m in board.test)
    whom = "the best of each family; of the first of the board" if board.several_models else "the first of the board"
    line = f"Test part, scored for {whom} alone: {shown}."
    mates = [b for b in board.baselines if b.fingerprint == board.winner.best_run.fingerprint and b.test]
    if mates and mates[0].test:
        line += f" The baseline there: macro-F1 {mates[0].test['macro_f1']:.3f}."
    return [escaped(line, 1000)]


def _winner(board: Board, best_config: str | None) -> list[str]:
    if best_config is None or board.winner is None:
        return []
    run = board.winner.best_run
    return ["## Use it", "", f"Run folder: {escaped(run.folder)}", "", "Train it again:", "", f"    {best_config}"]
