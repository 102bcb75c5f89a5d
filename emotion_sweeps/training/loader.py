"""The batch plan as a PyTorch batch sampler, with each example's share of the global mean.

An entry is (row, share): loss = sum of row loss * share is the mean over the global batch whatever the cut
into micro-batches. Heads count examples, generation counts supervised tokens. With several processes each
takes every n-th row of the global batch and shares are multiplied by their number, because DDP averages
gradients; a process that would run short gets a row with share 0, so that all run the same number of
micro-batches. Nothing is reshuffled or dropped: the loader does not go through accelerate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Generator
from torch.utils.data import DataLoader, Dataset, Sampler

from emotion_sweeps.data.batches import plan_epoch, split_micro_batches
from emotion_sweeps.training.plan import accumulation_steps, steps_per_epoch

Entry = tuple[int, float]


class PlannedBatches(Sampler[list[Entry]]):
    """The micro-batches of one epoch, in the order of the plan; `epoch` is set before each pass.

    Args:
        lengths: tokens of each training row.
        units: what each row counts in the global mean, 1 or its supervised tokens.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        units: Sequence[int],
        *,
        global_batch_size: int,
        micro_batch_size: int,
        seed: int,
        process: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.lengths, self.units, self.seed, self.epoch = lengths, units, seed, 0
        self.global_batch_size, self.micro_batch_size = global_batch_size, micro_batch_size
        self.process, self.num_processes = process, num_processes
        self.epoch_steps = steps_per_epoch(len(lengths), global_batch_size)
        self.accumulation = accumulation_steps(global_batch_size, micro_batch_size, num_processes)

    def __len__(self) -> int:
        last = len(self.lengths) - (self.epoch_steps - 1) * self.global_batch_size
        return (self.epoch_steps - 1) * self.accumulation + accumulation_steps(
            last, self.micro_batch_size, self.num_processes
        )

    def __iter__(self) -> Iterator[list[Entry]]:
        for batch in plan_epoch(self.lengths, self.global_batch_size, seed=self.seed, epoch=self.epoch):
            yield from self._micro_batches(batch)

    def _micro_batches(self, batch: list[int]) -> Iterator[list[Entry]]:
        share = self.num_processes / sum(self.units[row] for row in batch)
        rows = batch[self.process :: self.num_processes]
        shares = dict.fromkeys(rows, share)
        for micro in split_micro_batches(rows, self.micro_batch_size):
            yield [(row, shares[row]) for row in micro]
        wanted = accumulation_steps(len(batch), self.micro_batch_size, self.num_processes)
        for _ in range(wanted - accumulation_steps(len(rows), self.micro_batch_size)):
            yield [(batch[0], 0.0)]


class _Entries(Dataset[Entry]):
    """Hands the sampler's entries through to the collate function, which holds the rows."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, entry: Any) -> Entry:
        row, share = entry
        return row, share


def planned_loader(batches: PlannedBatches, collate: Callable[[list[Entry]], dict[str, Any]]) -> DataLoader[Any]:
    """A loader over the plan; its own generator keeps it from drawing from the one that dropout uses."""
    return DataLoader(_Entries(len(batches.lengths)), batch_sampler=batches, collate_fn=collate, generator=Generator())
