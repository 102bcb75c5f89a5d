"""No pruning: every trial trains to its end, and one that another pruner had paused is taken up again."""

from __future__ import annotations

from dataclasses import dataclass

from emotion_sweeps.sweeps.pruning.board import Board, Decision


@dataclass(frozen=True)
class Never:
    """Lets every trial go on."""

    def decide(self, trial: int, board: Board) -> Decision:
        """Always GO."""
        return Decision.GO

    def promote(self, board: Board) -> int | None:
        """The first paused trial, left over from a study that had another pruner."""
        return min(board.paused, default=None)

    def dropped(self, board: Board) -> frozenset[int]:
        """None."""
        return frozenset()
