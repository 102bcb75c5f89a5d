"""What the engine asks of a task, what it counts, and how it knows that memory ran out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from emotion_sweeps.lora.packed_model import PackedModel
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.packed.trial import Slot


class Task(Protocol):
    """What a pack trains for: `HeadTask` or `GenerationTask`."""

    def collate(self, parts: Any, device: torch.device) -> Any:
        """A `PackBatch` from everybody's entries."""

    def losses(self, model: Any, batch: Any, trials: Any) -> Tensor:
        """`(num_trials,)` losses."""

    def evaluate(self, pack: PackedModel, autocast: Any, slots: list[int], max_rows: int) -> list[Any]:
        """Metrics and details of each slot."""

    def outcomes(self, pack: PackedModel, autocast: Any, ended: dict[int, Slot], max_rows: int) -> dict[int, Outcome]:
        """Outcomes of ending trials."""


@dataclass
class PackCounts:
    """What was really packed, counted where it happens."""

    ticks: int = 0  # forward and backward passes
    trial_ticks: int = 0  # summed over the trials in them
    trials: int = 0  # that ended
    most_slots: int = 0
    halvings: int = 0

    def tick(self, num_trials: int) -> None:
        """One pass with so many trials in it."""
        self.ticks += 1
        self.trial_ticks += num_trials
        self.most_slots = max(self.most_slots, num_trials)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
