"""The console script `emotion-sweeps`: `train` (as python -m emotion_sweeps.train) and `report`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_sweeps import __version__

if TYPE_CHECKING:
    from emotion_sweeps.data.corpus import Corpus


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emotion-sweeps", description="Sweeps of LoRA for emotion classifiers.")
    parser.add_argument("--version", action="version", version=f"emotion-sweeps {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("train", help="one run, or with -m a sweep; takes Hydra overrides", add_help=False)
    report = commands.add_parser("report", help="leaderboard, table and best config of a sweep")
    report.add_argument("folders", nargs="*", type=Path, help="sweep or run folders; the latest sweep by default")
    report.add_argument("--root", type=Path, default=Path("multirun"), help="where the latest sweep is looked for")
    report.add_argument("--out", type=Path, help="where to write; the first folder by default")
    report.add_argument("--no-baseline", action="store_true", help="leave out the TF-IDF row (its corpus is not read)")
    return parser


def _train(arguments: list[str]) -> int:
    from emotion_sweeps import train

    sys.argv = ["emotion-sweeps-train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    return train.exit_code(train.run)


def _report(arguments: argparse.Namespace) -> int:
    from emotion_sweeps.report.build import build_report
    from emotion_sweeps.report.results import latest_sweep
    from emotion_sweeps.report.terminal import print_report

    folders = arguments.folders or [latest_sweep(arguments.root)]
    print_report(build_report(folders, arguments.out or folders[0], _corpus, baseline=not arguments.no_baseline))
    return 0


def _corpus(config: dict[str, Any]) -> Corpus:
    from emotion_sweeps.trial.components import corpus_for_report

    return corpus_for_report(config)


def main(argv: list[str] | None = None) -> None:
    """Dispatch; a user's mistake is one line and exit code 2."""
    from emotion_sweeps.errors import UserError

    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["train"]:
        sys.exit(_train(arguments[1:]))
    try:
        sys.exit(_report(_parser().parse_args(arguments)))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
