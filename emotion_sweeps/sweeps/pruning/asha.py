"""Asynchronous successive halving (ASHA, arXiv 1810.05934), in its promoting form.

A trial stops at each rung and goes on as soon as it is among the best 1/eta of those that have reached the rung so
far, wherever they run; a free slot promotes from the highest rung that has such a trial, and starts a new one where
none has. Unlike `halving` it brings trials to their end from early on, which a sampler can learn from, and pays with
promotions that later trials prove wrong: it costs more, and its outcome depends on the order.

Two rules for a finite study, which the paper's endless one does not need: a paused trial is dropped once it could not
be promoted even if every later trial were worse, and the study does not end without one trial trained to its end.
"""

from __future__ import annotations

from dataclasses import dataclass

from emotion_sweeps.sweeps.pruning.board import Board, Decision, last_index, reached
from emotion_sweeps.sweeps.pruning.rungs import Rung, resources, rung_of, standings


@dataclass(frozen=True)
class Asha:
    """Promotes the best 1/eta of the trials that a rung has seen so far."""

    min_resource: int
    reduction_factor: int
    max_resource: int | None
    maximize: bool

    def decide(self, trial: int, board: Board) -> Decision:
        """GO between rungs and among the best so far, STOP when it can never be among them, else PAUSE."""
        rung = rung_of(trial, self._rungs(board), board)
        if rung is None or rung.resource != last_index(board.histories[trial]):
            return Decision.GO
        if self._promotable(rung, trial):
            return Decision.GO
        return Decision.STOP if self._hopeless(rung, trial, _most(rung, board)) else Decision.PAUSE

    def promote(self, board: Board) -> int | None:
        """The best promotable paused trial of the highest rung; at the study's end the best, if none is complete."""
        rungs = self._rungs(board)
        at = {trial: rung_of(trial, rungs, board) for trial in board.paused}
        last_call = _is_over(board) and not board.complete
        for rule in (self._promotable, lambda *_: last_call):
            for rung in reversed(rungs):
                for trial in rung.ranked:
                    if at.get(trial) is rung and rule(rung, trial):
                        return trial
        return min((trial for trial, rung in at.items() if rung is None), default=None)

    def dropped(self, board: Board) -> frozenset[int]:
        """The paused trials that can never be among the best; at the study's end all that are not promoted."""
        if _is_over(board) and self.promote(board) is None:
            return board.paused
        rungs = self._rungs(board)
        at = {trial: rung_of(trial, rungs, board) for trial in board.paused}
        most = {rung.resource: _most(rung, board) for rung in rungs}
        return frozenset(t for t, rung in at.items() if rung and self._hopeless(rung, t, most[rung.resource]))

    def _rungs(self, board: Board) -> list[Rung]:
        levels = resources(self.min_resource, self.reduction_factor, self.max_resource, board)
        return standings(board, levels, [0] * len(levels), maximize=self.maximize)  # its quotas move with the board

    def _promotable(self, rung: Rung, trial: int) -> bool:
        rank = rung.ranks.get(trial)
        return rank is not None and rank <= len(rung.ranked) // self.reduction_factor

    def _hopeless(self, rung: Rung, trial: int, most: int) -> bool:
        rank = rung.ranks.get(trial)
        return rank is None or rank > max(1, most // self.reduction_factor)


def _most(rung: Rung, board: Board) -> int:
    """How many trials the rung can have seen in the end."""
    coming = sum(t not in board.ended and not reached(t, rung.resource, board) for t in board.histories)
    return len(rung.ranked) + coming + board.unstarted


def _is_over(board: Board) -> bool:
    """Whether nothing runs and nothing is left to start."""
    return not board.unstarted and all(t in board.ended or t in board.paused for t in board.histories)
