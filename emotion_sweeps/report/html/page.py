"""leaderboard.html put together: the table and the words by Jinja (everything escaped), the plots as data for plotly.

The page is whole without its scripts: they sort, filter and draw. It weighs 1.9 MiB for plotly.js,
about 0.55 KiB a trial and up to 1 MiB of points.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from emotion_sweeps import __version__
from emotion_sweeps.paths import ADAPTER_DIR, METRICS_FILE, PREDICTIONS_DIR, RESULT_FILE
from emotion_sweeps.report.findings import Analysis
from emotion_sweeps.report.html import embed, table
from emotion_sweeps.report.html.curves import make_curves, read_curves
from emotion_sweeps.report.html.effects import make_effects
from emotion_sweeps.report.html.figures import Plot
from emotion_sweeps.report.html.parallel import make_parallel
from emotion_sweeps.report.html.parameters import varied_parameters
from emotion_sweeps.report.html.slices import make_slices
from emotion_sweeps.report.html.winner import confusion_plot, labels_plot, read_confusion, read_labels
from emotion_sweeps.report.leaderboard import Board
from emotion_sweeps.report.markdown import NONE, number
from emotion_sweeps.report.ranking import metric_text
from emotion_sweeps.report.results import FAILED, PRUNED
from emotion_sweeps.report.texts import plain

PAGE_ROWS = 25  # shown at first; the rest on request
_SCRIPTS = ("table.js", "plots.js")
_FILES = (RESULT_FILE, ADAPTER_DIR, METRICS_FILE, PREDICTIONS_DIR)
_TEST_SHOWN = ("macro_f1", "micro_f1", "accuracy", "jaccard")


@dataclass(frozen=True)
class Tile:
    """A figure at the top of the page."""

    label: str
    value: str
    beside: str = ""


def render(
    board: Board, folders: Sequence[Path], out: Path, run_command: str | None, analysis: Analysis | None = None
) -> str:
    """The whole page.

    Args:
        folders: where the runs were read.
        out: the folder that the page is written to; run folders are linked from there.
        run_command: what trains the winner again, None where there is no winner.
        analysis: what the study teaches; its sections are left out without it.
    """
    effects = make_effects(analysis) if analysis else None
    curves = make_curves(board, read_curves(board))
    parameters = varied_parameters(board.ranking.entries)
    parallel, slices = make_parallel(board.ranking, parameters), make_slices(board.ranking, parameters)
    labels = _winner_plots(board)
    plots = [
        *(effects.plots if effects else []),
        *(curves.plots if curves else []),
        *([parallel[0]] if parallel else []),
        *(slices[0] if slices else []),
        *labels,
    ]
    rows = table.rows(board, out)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            **_shell(plots),
            title=_title(folders),
            board=board,
            headline=[plain(line, 1000) for line in board.headline],
            caveats=_caveats(board, analysis),
            tiles=_tiles(board, rows),
            rule=f"Ranked by {board.ranking.rule.by}, because {board.ranking.rule.why}.",
            columns=table.columns(board),
            rows=rows,
            page_rows=PAGE_ROWS,
            none_text=NONE,
            statuses=table.counts(rows),
            effects=effects,
            curves=curves,
            parallel=parallel,
            slices=slices,
            labels=labels,
            winner=_winner(board, out),
            run_command=run_command,
            folders=[plain(folder, 300) for folder in folders],
            version=__version__,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shell(plots: Sequence[Plot]) -> dict[str, Any]:
    """The page's scripts and data; plotly.js is left out where nothing is to be drawn."""
    scripts = [embed.asset(name) for name in _SCRIPTS]
    packed = [embed.plotly_js()] if plots else []
    return {
        "policy": embed.content_security_policy([*scripts, *packed]),
        "style": embed.asset("page.css"),
        "scripts": scripts,
        "plot_data": embed.inert_json([plot.data() for plot in plots]),
        "plotly": embed.packed_plotly_js() if plots else "",
    }


def _title(folders: Sequence[Path]) -> str:
    """The sweep's name, where there is one."""
    if len(folders) != 1:
        return f"Leaderboard of {len(folders)} folders"
    parts = [part for part in Path(folders[0]).resolve().parts[-2:] if part not in ("multirun", "/")]
    return f"Leaderboard {plain('/'.join(parts), 80)}".strip()


def _tiles(board: Board, rows: Sequence[table.Row]) -> list[Tile]:
    tiles = []
    if board.winner is not None:
        first = board.rows[next(index for index, row in enumerate(board.rows) if row.rank is not None)]
        tiles.append(Tile("best val loss", number(first.loss, 4), _spread(first.loss_spread, 4)))
        tiles.append(Tile("macro-F1", number(first.macro_f1, 3), _spread(first.macro_f1_spread, 3)))
    if board.test and "macro_f1" in board.test:
        tiles.append(Tile("macro-F1, test part", number(board.test["macro_f1"], 3), "scored once"))
    if board.baselines:
        tiles.append(Tile("macro-F1, baseline", number(board.baselines[0].validation.get("macro_f1"), 3), "TF-IDF"))
    tiles.append(Tile("trials", f"{len(board.ranking.entries):,}", _others(rows)))
    column = [column.heading for column in table.columns(board)].index("minutes")
    minutes = [row.cells[column].key for row in rows if row.status != table.BASELINE]
    known = [minute for minute in minutes if minute is not None]
    if known:
        tiles.append(Tile("training time", _duration(sum(known))))
    return tiles


def _spread(spread: float | None, digits: int) -> str:
    return "" if spread is None else f"± {spread:.{digits}f} over seeds"


def _others(rows: Sequence[table.Row]) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in table.counts(rows) if status in (PRUNED, FAILED))


def _duration(minutes: float) -> str:
    return f"{minutes / 60:,.1f} h" if minutes >= 90 else f"{minutes:.1f} min"


def _caveats(board: Board, analysis: Analysis | None) -> list[str]:
    lines = [*board.caveats, *(analysis.caveats if analysis else ())]
    return list(dict.fromkeys(plain(line, 1000) for line in lines))


def _winner_plots(board: Board) -> list[Plot]:
    if board.winner is None:
        return []
    run = board.winner.best_run
    rows, counts = read_labels(run), read_confusion(run)
    return [
        *([labels_plot(rows)] if rows else []),
        *([confusion_plot(run.label_names, counts)] if counts else []),
    ]


def _winner(board: Board, out: Path) -> dict[str, Any] | None:
    """The winner's name, folder and files, and its score on the test part."""
    if board.winner is None:
        return None
    run = board.winner.best_run
    folder = table.link(run.folder, out)
    files = [name for name in _FILES if (run.folder / name).exists()]
    scores = board.test or {}
    test = ", ".join(f"{metric_text(m)} {scores[m]:.3f}" for m in _TEST_SHOWN if m in scores)
    return {"name": plain(run.name), "folder": folder, "files": files, "test": test}
