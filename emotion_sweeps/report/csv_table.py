"""The board as leaderboard.csv: numbers unrounded, texts that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io

from emotion_sweeps.report.leaderboard import Board, TableRow
from emotion_sweeps.report.texts import spreadsheet


def render(board: Board) -> str:
    """The table's rows, then the pruned and failed runs; `status` tells them apart."""
    rows = [_row(row) for row in board.rows]
    for run in (*board.ranking.unranked, *board.pruned, *board.failed):
        loss, f1 = run.best_loss, run.best_macro_f1
        rows.append(
            {
                "status": run.status,
                "experiment": run.name,
                "best_validation_loss": loss.value if loss else None,
                "macro_f1": f1.value if f1 else None,
                "notes": run.error,
                "folder": str(run.folder),
            }
        )
    out = io.StringIO()
    writer = csv.DictWriter(out, list(_HEADINGS), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: spreadsheet(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


_HEADINGS = (
    *("rank", "status", "experiment", "model", "task", "best_validation_loss", "loss_spread", "macro_f1"),
    *("macro_f1_spread", "score", "seeds", "lora", "scheduler", "data", "trainable_parameters", "minutes"),
    *("notes", "folder"),
)


def _row(row: TableRow) -> dict[str, object]:
    return {
        "rank": row.rank,
        "status": "complete" if row.rank is not None else "baseline",
        "experiment": row.experiment,
        "model": row.model,
        "task": row.task,
        "best_validation_loss": row.loss,
        "loss_spread": row.loss_spread,
        "macro_f1": row.macro_f1,
        "macro_f1_spread": row.macro_f1_spread,
        "score": row.score,
        "seeds": row.seeds,
        "lora": row.lora,
        "scheduler": row.scheduler,
        "data": row.data,
        "trainable_parameters": row.trainable_parameters,
        "minutes": row.minutes,
        "notes": "; ".join(row.notes),
        "folder": None if row.folder is None else str(row.folder),
    }
