"""The report from end to end: read the runs, rank them, score the winner and the baseline, write the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion_sweeps.report import best_config, csv_table, markdown
from emotion_sweeps.report.analysis import analyse
from emotion_sweeps.report.baselines import LoadCorpus, baseline_scores
from emotion_sweeps.report.findings import Analysis
from emotion_sweeps.report.html import page as html
from emotion_sweeps.report.leaderboard import Board, make_board
from emotion_sweeps.report.ranking import Ranking, rank
from emotion_sweeps.report.results import RunRow, no_results, read_runs
from emotion_sweeps.report.testpart import scored_on_test

MARKDOWN_FILE = "leaderboard.md"
HTML_FILE = "leaderboard.html"
CSV_FILE = "leaderboard.csv"
BEST_CONFIG_FILE = f"{best_config.NAME}.yaml"


@dataclass(frozen=True)
class Report:
    """What was written and what stands in it."""

    paths: list[Path]
    runs: list[RunRow]
    board: Board
    analysis: Analysis
    text: str  # of leaderboard.md

    @property
    def caveats(self) -> list[str]:
        """What a reader must know before believing the ranking."""
        return self.board.caveats


def build_report(
    folders: Sequence[Path | str], out_dir: Path | str, load_corpus_for: LoadCorpus, *, baseline: bool = True
) -> Report:
    """Rank every run below `folders` and write leaderboard.md, .html and .csv and best_config.yaml to `out_dir`.

    Args:
        load_corpus_for: from a run's config to its corpus; asked only where the baseline is not cached.
        baseline: whether the TF-IDF row is wanted.

    Raises:
        UserError: a folder is not there, or no run below any of them left a result.
    """
    sources, out = [Path(folder) for folder in folders], Path(out_dir)
    runs = read_runs(sources)
    if not runs.rows and not runs.problems:
        raise no_results(sources)
    scores, missing = baseline_scores(runs.rows, load_corpus_for) if baseline else ([], [])
    test, unread = _winner_on_test(rank(runs.rows))
    problems = [*runs.problems, *missing, *unread]
    board = make_board(runs.rows, baselines=scores, test=test, problems=problems)
    return _write(board, analyse(board.ranking, runs.rows, scores), runs.rows, sources, out)


def _winner_on_test(ranking: Ranking) -> tuple[dict[str, float] | None, list[str]]:
    if not ranking.entries:
        return None, []
    try:
        return scored_on_test(ranking.entries[0].best_run), []
    except (ValueError, OSError) as error:
        return None, [str(error)]


def _write(board: Board, analysis: Analysis, runs: list[RunRow], sources: Sequence[Path], out: Path) -> Report:
    out.mkdir(parents=True, exist_ok=True)
    base, winner = Path.cwd(), board.winner
    run_command = None
    files: dict[str, str] = {}
    if winner is not None and winner.best_run.config:
        run_command = best_config.command(out, base)
        files[BEST_CONFIG_FILE] = best_config.render(winner.best_run, base, run_command)
    text = markdown.render(board, sources, run_command, analysis)
    html_page = html.render(board, sources, out, run_command, analysis)
    files = {MARKDOWN_FILE: text, HTML_FILE: html_page, CSV_FILE: csv_table.render(board), **files}
    (out / BEST_CONFIG_FILE).unlink(missing_ok=True)  # an earlier report's winner, where there is none now
    for name, content in files.items():
        (out / name).write_text(content, encoding="utf-8", newline="\n")
    return Report([out / name for name in files], runs, board, analysis, text)
