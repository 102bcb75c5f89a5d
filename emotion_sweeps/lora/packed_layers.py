"""Layers of a pack: one frozen layer for all trials, and each trial's own adapter or head.

Rows come trial-major: the first `batch` rows are the first trial's. With x `(num_trials, batch * seq, in)`

    y = W x + scaling_t * B_t A_t dropout_t(x)        A (num_trials, r_max, in), B (num_trials, out, r_max)

W runs once over all rows; a 4-bit W is dequantised once. Ranks below r_max are padded with zeros in A and in B,
whose gradients are then exactly zero, so the padding stays zero under AdamW with weight decay. One batched matmul
for A, one for B with the addition fused. Precision follows PEFT: adapters are fp32 on any base, and under autocast
their matmuls run in autocast's dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from emotion_sweeps.lora.packed_dropout import Stream, keep_mask


@dataclass
class PackState:
    """What all packed layers of one model know: the slots, and who takes part in the current forward pass."""

    scaling: Tensor  # (num_slots, 1, 1)
    lora_dropout: list[float]  # one a slot
    slots: list[int] | None = None  # in the batch now; None: all
    streams: Sequence[Stream] | None = None  # of the trials in the batch; None: no dropout
    _index: Tensor | None = None
    _calls: dict[str, int] = field(default_factory=dict)

    @property
    def num_trials(self) -> int:
        """Trials in the current batch."""
        return len(self.scaling) if self.slots is None else len(self.slots)

    @contextmanager
    def using(self, slots: list[int] | None = None, streams: Sequence[Stream] | None = None) -> Iterator[None]:
        """The forward passes of the block are of these slots, with these dropout streams."""
        everyone = slots is None or slots == list(range(len(self.scaling)))
        self.slots, self.streams = (None if everyone else slots), streams
        self._index = None if everyone else torch.tensor(slots, device=self.scaling.device)
        self._calls.clear()
        try:
            yield
        finally:
            self.slots, self.streams, self._index = None, None, None

    def chosen(self, stacked: Tensor) -> Tensor:
        """The rows of a `(num_slots, ...)` tensor that belong to the batch."""
        return stacked if self._index is None else stacked.index_select(0, self._index)

    def rates(self) -> list[float]:
        """The adapter dropout of each trial in the batch."""
        return self.lora_dropout if self.slots is None else [self.lora_dropout[slot] for slot in self.slots]

    def call_name(self, name: str) -> str:
        """`name`, and which call of this forward pass it is: a head may use one dropout layer twice."""
        self._calls[name] = self._calls.get(name, -1) + 1
        return f"{name}#{self._calls[name]}"

    def dropped(self, rows: Tensor, name: str, rates: Sequence[float]) -> Tensor:
        """`(num_trials, *shape)` after dropout with one rate a trial; as it is where nothing is dropped."""
        if self.streams is None or not any(rates):
            return rows
        mask = keep_mask(self.streams, name, rows.shape[1:], rates, dtype=rows.dtype, device=rows.device)
        return rows * mask


def _as_computed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in the dtype that the adapter's matmul runs in."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else dtype)


class PackedLora(nn.Module):
    """A frozen linear layer with an adapter for each trial."""

    lora_a: nn.Parameter
    lora_b: nn.Parameter

    def __init__(self, base_layer: nn.Module, name: str, state: PackState) -> None:
        super().__init__()
        self.base_layer, self.name, self.state = base_layer, name, state
        self.casts_alike = type(base_layer) in (nn.Linear, Conv1D)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`(num_trials * batch, ..., in)` to `(num_trials * batch, ..., out)`."""
        state = self.state
        a, b = state.chosen(self.lora_a), state.chosen(self.lora_b)
        n, computed = state.num_trials, _as_computed(x, a.dtype)
        # Autocast would cast x for the base layer in any case: once is enough. A 4-bit layer casts by its own rules.
        shared = self.casts_alike and torch.is_autocast_enabled(x.device.type)
        out: Tensor = self.base_layer(computed if shared else x, *args, **kwargs)
        rows = computed.reshape(n, -1, *x.shape[1:])
        if self.training:
            rows = state.dropped(rows, self.name, state.rates())
        hidden = torch.bmm(rows.flatten(1, -2), a.transpose(1, 2))
        scaled = (b * state.chosen(state.scaling)).transpose(1, 2)
        stacked = out.reshape(n, -1, out.shape[-1])
        if stacked.dtype == hidden.dtype:
            return torch.baddbmm(stacked, hidden, scaled).view_as(out)
        return (stacked + torch.bmm(hidden, scaled).to(stacked.dtype)).view_as(out)


class PackedLinear(nn.Module):
    """A linear layer of a class head, one for each trial: weight `(num_slots, out, in)`, bias `(num_slots, out)`."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, state: PackState) -> None:
        super().__init__()
        self.state, self.bias = state, None

    def forward(self, x: Tensor) -> Tensor:
        """`(num_trials * batch, ..., in)` to `(num_trials * batch, ..., out)`."""
        weight = self.state.chosen(self.weight).transpose(1, 2)
        rows = _as_computed(x, weight.dtype).reshape(self.state.num_trials, -1, x.shape[-1])
        if self.bias is None:
            out = torch.bmm(rows, weight)
        else:
            out = torch.baddbmm(self.state.chosen(self.bias).unsqueeze(1), rows, weight)
        return out.view(*x.shape[:-1], out.shape[-1])


class PackedNorm(nn.Module):
    """A LayerNorm of a class head, one for each trial: weight and bias `(num_slots, width)`."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, state: PackState, eps: float) -> None:
        super().__init__()
        self.state, self.eps, self.weight, self.bias = state, eps, None, None

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        rows = F.layer_norm(x, x.shape[-1:], None, None, self.eps).view(self.state.num_trials, -1, x.shape[-1])
        if self.weight is not None:
            rows = rows * self.state.chosen(self.weight).unsqueeze(1)
        if self.bias is not None:
            rows = rows + self.state.chosen(self.bias).unsqueeze(1)
        return rows.view_as(x)


class PackedDropout(nn.Module):
    """A dropout layer of the base or the head, with a stream for each trial."""

    def __init__(self, p: float, name: str, state: PackState, *, in_head: bool) -> None:
        super().__init__()
        self.p, self.name, self.state, self.in_head = p, name, state, in_head

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; as it is outside training."""
        if not self.training or self.state.streams is None:
            return x
        # Layers of the base may run a second time under gradient checkpointing and must meet the same mask.
        name = self.state.call_name(self.name) if self.in_head else self.name
        rows = x.reshape(self.state.num_trials, -1, *x.shape[1:])
        return self.state.dropped(rows, name, [self.p] * len(rows)).view_as(x)
