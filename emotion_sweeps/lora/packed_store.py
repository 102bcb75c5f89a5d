"""The trained numbers of a pack in flat buffers `(num_slots, size)`: one row a trial, layers as views into it.

    row = adapter matrices | head matrices | head vectors

so that a learning rate, a decay or a clipping factor acts on whole columns, and an optimizer step is about ten
elementwise operations for any number of trials and layers. Ranks are padded to `max_rank`. Weights go in and out
under PEFT's parameter names at their true rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ADAPTER, HEAD = "adapter", "head"


@dataclass(frozen=True)
class Entry:
    """One trained parameter: PEFT's name, shape (0 where the rank goes), `adapter` or `head`."""

    name: str
    shape: tuple[int, ...]
    part: str

    @property
    def rank_axis(self) -> int | None:
        """The axis along which the rank lies; None for the head."""
        return self.shape.index(0) if 0 in self.shape else None

    def sized(self, rank: int) -> tuple[int, ...]:
        """The shape at a rank."""
        return tuple(size or rank for size in self.shape)

    @property
    def order(self) -> tuple[bool, bool]:
        """Adapter first, vectors last."""
        return self.part == HEAD, len(self.shape) < 2


class Layout:
    """Where each parameter lies in a row."""

    def __init__(self, entries: Iterable[Entry], max_rank: int) -> None:
        self.entries = sorted(entries, key=lambda entry: entry.order)
        self.max_rank = max_rank
        self.offsets: dict[str, int] = {}
        self.size = self.adapter_size = self.decayed_size = 0
        for entry in self.entries:
            self.offsets[entry.name] = self.size
            self.size += torch.Size(entry.sized(max_rank)).numel()
            if entry.part == ADAPTER:
                self.adapter_size = self.size
            if len(entry.shape) > 1:
                self.decayed_size = self.size

    def view(self, rows: Tensor, entry: Entry) -> Tensor:
        """The parameter in rows `(num_slots, size)`, as `(num_slots, *shape at max_rank)`."""
        shape, offset = entry.sized(self.max_rank), self.offsets[entry.name]
        return rows[:, offset : offset + torch.Size(shape).numel()].view(len(rows), *shape)


class SlotStore:
    """The flat buffers: weights, gradients and the optimizer's two moments."""

    BUFFERS = ("weights", "gradients", "exp_avg", "exp_avg_sq")

    def __init__(
        self, entries: Iterable[Entry], num_slots: int, max_rank: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.layout = Layout(entries, max_rank)
        self.buffers = {
            name: torch.zeros(num_slots, self.layout.size, dtype=dtype, device=device) for name in self.BUFFERS
        }

    @property
    def num_slots(self) -> int:
        """Rows of each buffer."""
        return len(self.buffers["weights"])

    def clear(self, slot: int) -> None:
        """Zero everything of a slot, padding included."""
        for buffer in self.buffers.values():
            buffer[slot].zero_()

    def write(self, slot: int, values: Mapping[str, Tensor], buffer: str = "weights") -> None:
        """Put parameters at their true rank into a slot; what lies beside them is not touched."""
        rows = self.buffers[buffer][slot : slot + 1]
        for entry in self.layout.entries:
            value = values[entry.name]
            self._true(self.layout.view(rows, entry)[0], entry, value).copy_(value)

    def read(self, slot: int, rank: int, buffer: str = "weights") -> dict[str, Tensor]:
        """Copies of a slot's parameters at their true rank, on the CPU."""
        rows = self.buffers[buffer][slot : slot + 1].detach().to("cpu", copy=True)
        found = {}
        for entry in self.layout.entries:
            padded = self.layout.view(rows, entry)[0]
            axis = entry.rank_axis
            found[entry.name] = (padded if axis is None else padded.narrow(axis, 0, rank)).contiguous()
        return found

    @staticmethod
    def _true(padded: Tensor, entry: Entry, value: Tensor) -> Tensor:
        axis = entry.rank_axis
        return padded if axis is None else padded.narrow(axis, 0, value.shape[axis])

    def padding_is_zero(self, slot: int, rank: int) -> bool:
        """Whether nothing but zeros lies beyond the true rank, in every buffer."""
        for buffer in self.buffers.values():
            for entry in self.layout.entries:
                axis = entry.rank_axis
                if axis is not None:
                    padded = self.layout.view(buffer[slot : slot + 1], entry)[0]
                    if padded.narrow(axis, rank, self.layout.max_rank - rank).count_nonzero():
                        return False
        return True

    def resized(self, keep: Sequence[int | None], max_rank: int) -> SlotStore:
        """A store whose slot i holds this one's slot `keep[i]`, or zeros where that is None."""
        some = self.buffers["weights"]
        new = SlotStore(self.layout.entries, len(keep), max_rank, dtype=some.dtype, device=some.device)
        rank = min(max_rank, self.layout.max_rank)
        pairs = [(to, of) for to, of in enumerate(keep) if of is not None]
        for name, buffer in self.buffers.items():
            for entry in self.layout.entries:
                old, fresh = self.layout.view(buffer, entry), new.layout.view(new.buffers[name], entry)
                if (axis := entry.rank_axis) is not None:
                    old, fresh = old.narrow(axis + 1, 0, rank), fresh.narrow(axis + 1, 0, rank)
                for to, of in pairs:
                    fresh[to].copy_(old[of])
        return new
