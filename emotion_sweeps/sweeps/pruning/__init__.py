"""Pruners: which trials of a study go on, wait at a rung, or end; pure functions of what was reported.

A pruner is asked three questions, each about one `Board` (a snapshot of the study). How a `TrialSource` uses it:

    after a report   decision = pruner.decide(trial, board)      # board holds the value just reported
                       GO     the trial trains on
                       PAUSE  it stops now and keeps its checkpoint: the source marks it paused and frees its slot
                       STOP   it stops now for good: PRUNED, with its best value; its checkpoint can go
    in claim()       1. for trial in pruner.dropped(board): mark it PRUNED (paused trials that will never go on)
                     2. trial = pruner.promote(board); if not None: resume it from its checkpoint (same number, same
                        folder; it counts as running again). Take it away from `paused` atomically, as a lease is taken.
                     3. else start a fresh trial, if the study has one left to start
                     4. else, if trials of other slots or workers still run, wait and ask again: their reports decide
                     5. else the study is done

Once nothing runs and nothing is left to start, every paused trial is either promoted or dropped (tested), so step 4
never waits for ever. Nothing needs a COMPLETE trial: the first rung already prunes, with one slot or with many. With
`halving` no answer depends on the order in which trials ran or reported; a trial whose fate is certain early goes on
or ends at once, which is why slots hardly wait for each other. A pack reports all its slots first and asks afterwards.

To a sampler a paused trial should look like a PRUNED one with its best value so far, not like a running one: TPE's
constant liar holds running trials for bad, and would flee the region that the best paused trials mark.
"""

from __future__ import annotations

from typing import Literal, Protocol

from emotion_sweeps.sweeps.pruning.asha import Asha
from emotion_sweeps.sweeps.pruning.board import Board, Decision
from emotion_sweeps.sweeps.pruning.halving import Halving
from emotion_sweeps.sweeps.pruning.hyperband import Hyperband
from emotion_sweeps.sweeps.pruning.median import Median
from emotion_sweeps.sweeps.pruning.never import Never
from emotion_sweeps.sweeps.pruning.wilcoxon import Wilcoxon

PRUNERS = ("none", "asha", "halving", "hyperband", "median", "wilcoxon")
BUDGET = 1 / 3
Direction = Literal["minimize", "maximize"]

__all__ = ["BUDGET", "PRUNERS", "Board", "Decision", "Direction", "Pruner", "make_pruner"]


class Pruner(Protocol):
    """Answers from a snapshot alone: equal boards get equal answers, in any process."""

    def decide(self, trial: int, board: Board) -> Decision:
        """What `trial` does after the evaluation that it reported last."""

    def promote(self, board: Board) -> int | None:
        """The paused trial that should go on next, or None."""

    def dropped(self, board: Board) -> frozenset[int]:
        """The paused trials that can never go on, whatever is still reported."""


def make_pruner(
    name: str,
    *,
    reduction_factor: int,
    min_resource: int | None,
    direction: str,
    max_resource: int | None = None,
    budget: float | None = BUDGET,
) -> Pruner:
    """The pruner called `name`.

    Args:
        name: one of `PRUNERS`.
        reduction_factor: of asha, halving and hyperband: at least one trial in so many goes on past a rung, and the
            next rung is at so many times the evaluations.
        min_resource: evaluations (wilcoxon: replicates) before a trial may be pruned; None: an eighth of
            `max_resource`, at least one.
        direction: `minimize` or `maximize`.
        max_resource: evaluations of a whole trial (the most of any cell); None where it is not known: then a trial may
            be asked to pause at its very last evaluation.
        budget: of halving: the share of the full grid's evaluations that it may spend on more survivors than one in
            `reduction_factor`; None for exactly that.
    """
    if direction not in ("minimize", "maximize"):
        raise ValueError(f"direction must be minimize or maximize, got {direction}")
    maximize = direction == "maximize"
    first = min_resource or max(1, (max_resource or 1) // 8)
    match name:
        case "none":
            return Never()
        case "halving":
            return Halving(first, reduction_factor, max_resource, maximize, budget)
        case "asha":
            return Asha(first, reduction_factor, max_resource, maximize)
        case "hyperband":
            if max_resource is None:
                raise ValueError("hyperband needs max_resource, the evaluations of a whole trial")
            return Hyperband(first, reduction_factor, max_resource, maximize)
        case "median":
            return Median(first, maximize)
        case "wilcoxon":
            return Wilcoxon(maximize)
    raise ValueError(f"pruner must be one of {', '.join(PRUNERS)}, got {name}")
