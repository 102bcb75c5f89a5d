"""Where a trial stands in its own data: epoch, step and micro-batch, each slot with a cursor of its own.

The order is `data.batches.plan_epoch`'s, as in the solo engine: trials with equal seeds, texts and batch sizes that
began together see the same micro-batches at the same time, and one that began late begins at its own step 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from emotion_sweeps.data.batches import plan_epoch, split_micro_batches
from emotion_sweeps.training.loader import Entry, PlannedBatches


@dataclass(frozen=True)
class Micro:
    """One micro-batch of one trial."""

    entries: list[Entry]  # (row, share of the global mean)
    number: int  # within its step, from 0
    last: bool  # of its step: the optimizer steps after it
    epoch: float  # passes over the data once it is done


class Cursor:
    """Hands out a trial's micro-batches, from a step on.

    Args:
        batches: the plan; its epoch attribute is not used.
        step: optimizer steps done before.
    """

    def __init__(self, batches: PlannedBatches, step: int) -> None:
        self._batches, self.step, self._number = batches, step, 0
        self._epoch, self._plan = -1, list[list[int]]()

    def next(self) -> Micro:
        """The next micro-batch of the step that is under way."""
        batches = self._batches
        epoch, position = divmod(self.step, batches.epoch_steps)
        if epoch != self._epoch:
            self._plan = plan_epoch(batches.lengths, batches.global_batch_size, seed=batches.seed, epoch=epoch)
            self._epoch = epoch
        batch = self._plan[position]
        share = 1 / sum(batches.units[row] for row in batch)
        micros = split_micro_batches(batch, batches.micro_batch_size)
        number, self._number = self._number, self._number + 1
        done = position * batches.accumulation + number + 1
        entries = [(row, share) for row in micros[number]]
        return Micro(entries, number, number + 1 == len(micros), epoch + done / len(batches))

    def commit(self) -> None:
        """The optimizer has stepped: on to the next step."""
        self.step, self._number = self.step + 1, 0

    def rewind(self) -> None:
        """Back to the first micro-batch of the step that is under way."""
        self._number = 0
