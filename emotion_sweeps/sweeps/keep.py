"""Whose adapter weights stay on disk: `best`, the `top_k`, or `all`; results, metrics and predictions always stay.

A trial that others beat by then stays beaten, so workers may clear up at any time without asking each other.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from emotion_sweeps.paths import ADAPTER_DIR, CHECKPOINTS_DIR


def losers(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], keep: str, top_k: int) -> list[int]:
    """Numbers of the finished trials whose weights may go; with several objectives the Pareto front stays."""
    if keep == "all":
        return []
    complete = [t for t in trials if t.state == TrialState.COMPLETE and t.values]
    if len(directions) == 1:
        sign = -1.0 if directions[0] == StudyDirection.MAXIMIZE else 1.0
        ranked = sorted(complete, key=lambda t: (sign * t.values[0], t.number))
        winners = {t.number for t in ranked[: 1 if keep == "best" else top_k]}
    else:
        winners = {t.number for t in pareto_front(complete, directions)}
    return [t.number for t in trials if t.state.is_finished() and t.number not in winners]


def pareto_front(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """The trials that no other is at least as good as in everything and better in something."""
    signs = [-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in directions]
    costs = {t.number: tuple(s * v for s, v in zip(signs, t.values, strict=True)) for t in trials}

    def beaten(number: int) -> bool:
        mine = costs[number]
        return any(o != mine and all(a <= b for a, b in zip(o, mine, strict=True)) for o in costs.values())

    return [t for t in trials if not beaten(t.number)]


def delete_weights(sweep_dir: Path, numbers: Sequence[int]) -> None:
    """Delete `adapter/` of these trials and of their replicates."""
    for number in numbers:
        folder = sweep_dir / str(number)
        for weights in (folder / ADAPTER_DIR, *folder.glob(f"seed_*/{ADAPTER_DIR}")):
            if weights.is_dir():
                shutil.rmtree(weights, ignore_errors=True)


def delete_checkpoints(sweep_dir: Path, numbers: Sequence[int]) -> None:
    """Delete what finished trials have left in `checkpoints/` (one that ended while it was paused, say)."""
    for number in numbers:
        folder = sweep_dir / str(number)
        for checkpoints in (folder / CHECKPOINTS_DIR, *folder.glob(f"seed_*/{CHECKPOINTS_DIR}")):
            if checkpoints.is_dir():
                shutil.rmtree(checkpoints, ignore_errors=True)
