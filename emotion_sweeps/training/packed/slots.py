"""The slots of a pack: who sits where, moved without a trial noticing.

Slots are always as many as trials that train, so no forward pass carries an empty one; the model is resized when
their number changes. A parked trial waits on the CPU with its weights, moments, step and counters, and goes on later
as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from emotion_sweeps.lora.packed_model import PackedModel
from emotion_sweeps.lora.packed_store import SlotStore
from emotion_sweeps.training.packed.checkpoint import read_checkpoint, step_of
from emotion_sweeps.training.packed.cursor import Cursor
from emotion_sweeps.training.packed.trial import PackTrial, Slot

LOSS, NORM, BAD, STEP = range(4)  # loss since the last record, last gradient norm, first bad step, half-done step


class Slots:
    """The trials of a pack, by slot."""

    def __init__(self, pack: PackedModel) -> None:
        self.pack = pack
        self.members: list[Slot | None] = [None] * pack.num_slots
        self.counters = self._counters(pack.num_slots)

    def _counters(self, count: int) -> torch.Tensor:
        return torch.zeros(4, count, dtype=torch.float64, device=self.pack.device)

    @property
    def taken(self) -> list[int]:
        """Slots with a trial."""
        return [index for index, slot in enumerate(self.members) if slot is not None]

    def at(self, index: int) -> Slot:
        """The trial in a slot."""
        slot = self.members[index]
        assert slot is not None
        return slot

    def put(self, trial: PackTrial) -> int:
        """Start a trial in a free slot with fresh everything, or from its checkpoint; room is made for it."""
        index = self._room(trial.rank)
        self.pack.load(index, trial.weights, scaling=trial.scaling, dropout=trial.dropout)
        self.counters[:, index] = 0
        checkpoint = None if trial.settings is None else trial.settings.get("resume_from")
        slot = Slot(trial, Cursor(trial.plan.batches, 0))
        if checkpoint is not None:
            slot.best_weights = read_checkpoint(self.pack, index, trial, checkpoint)
            slot.cursor = Cursor(trial.plan.batches, step_of(checkpoint))
            slot.last_logged = slot.step
        self.members[index] = slot
        return index

    def _room(self, rank: int) -> int:
        max_rank = max(rank, self.pack.max_rank)
        if None in self.members:
            if max_rank > self.pack.max_rank:
                self._resize(list(range(len(self.members))), max_rank)
            return self.members.index(None)
        self._resize([*range(len(self.members)), None], max_rank)
        return len(self.members) - 1

    def free(self, indices: Iterable[int]) -> None:
        """Let trials go."""
        for index in indices:
            self.members[index] = None

    def close_ranks(self) -> None:
        """Drop the slots without a trial."""
        if None in self.members and self.taken:
            self._resize(self.taken, self.pack.max_rank)

    def _resize(self, keep: list[int | None] | list[int], max_rank: int) -> None:
        counters = self._counters(len(keep))
        for to, of in enumerate(keep):
            if of is not None:
                counters[:, to] = self.counters[:, of]
        self.pack.resize(keep, max_rank)
        self.counters = counters
        self.members = [None if of is None else self.members[of] for of in keep]

    def park(self, index: int) -> Slot:
        """Take a trial out of its slot, with all that it needs to go on; its half-done step is begun anew."""
        slot = self.at(index)
        rank = slot.trial.rank
        slot.parked = {
            name: self.pack.store.read(index, rank, name) for name in SlotStore.BUFFERS if name != "gradients"
        }
        slot.counters = self.counters[:, index].tolist()
        slot.cursor.rewind()
        self.members[index] = None
        return slot

    def unpark(self, slot: Slot) -> int:
        """Bring a parked trial back."""
        assert slot.parked is not None
        index = self._room(slot.trial.rank)
        trial = slot.trial
        self.pack.load(index, slot.parked["weights"], scaling=trial.scaling, dropout=trial.dropout)
        for name, values in slot.parked.items():
            self.pack.store.write(index, values, name)
        self.counters[:, index] = torch.tensor(slot.counters, dtype=torch.float64)
        slot.parked = None
        self.members[index] = slot
        return index

    def rewind(self) -> None:
        """Begin everybody's step anew: half-gathered gradients and losses are dropped."""
        self.pack.store.buffers["gradients"].zero_()
        self.counters[STEP] = 0
        for index in self.taken:
            self.at(index).cursor.rewind()
