"""Dropout streams of a pack: a trial's masks depend on its own seed and step, never on its pack-mates.

A mask is a function of (stream of the trial at this step, layer name, the trial's own rows and width). It is drawn
at the trial's own shape and placed into the pack's, so wider pack-mates do not move it; and it can be drawn again,
so gradient checkpointing meets the same mask. Trials with the same stream and shape (the rule in a sweep: one seed,
one order of texts) share one draw, and differ only in the rate that it is cut at. Bits are 16-bit integers: a rate
is met to 1/131072, and the scale is that of the rate that was met. Cost: one generator seeding and n/4 draws a mask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LEVELS = 65536
_LOWEST = -32768


@dataclass(frozen=True)
class Stream:
    """One trial's stream in one forward pass: its seed (of trial, step and micro-batch), its rows and its width."""

    seed: int
    num_rows: int
    width: int  # tokens of the trial's longest row; further positions are padding


def _mixed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest(), "big")


def random_bits(shape: Sequence[int], seed: int, name: str, device: torch.device) -> Tensor:
    """Uniform int16 numbers of `shape`, a pure function of the arguments (and the kind of device)."""
    generator = torch.Generator(device).manual_seed(_mixed(seed, name))
    count = 1
    for size in shape:
        count *= size
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:count].view(*shape)


def own_shape(shape: Sequence[int], stream: Stream) -> tuple[int, ...]:
    """The part of a trial's `shape` that is its own: `(rows, features)`, `(rows, seq, features)`, or
    `(rows, heads, seq, seq)`."""
    own = [min(shape[0], stream.num_rows), *shape[1:]]
    for axis in {3: (1,), 4: (2, 3)}.get(len(shape), ()):
        own[axis] = min(shape[axis], stream.width)
    return tuple(own)


def keep_mask(
    streams: Sequence[Stream],
    name: str,
    shape: Sequence[int],
    rates: Sequence[float],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """What to multiply with: 0 where dropped, 1 / (1 - rate) where kept.

    Args:
        streams: one a trial.
        name: the layer's.
        shape: of one trial's part of the activation, rows first.
        rates: one a trial.
    Returns:
        `(num_trials, *shape)`, or `(1, *shape)` where all trials have the same mask.
    """
    shape = tuple(shape)
    keys = [(stream.seed, own_shape(shape, stream)) for stream in streams]
    drawn = {key: random_bits(key[1], key[0], name, device) for key in dict.fromkeys(keys)}
    if len(drawn) == 1 and keys[0][1] == shape:
        bits = drawn[keys[0]].unsqueeze(0)
    else:
        bits = torch.full((len(keys), *shape), -_LOWEST - 1, dtype=torch.int16, device=device)
        for trial, key in enumerate(keys):
            part = bits[trial]
            for axis, size in enumerate(key[1]):
                part = part.narrow(axis, 0, size)
            part.copy_(drawn[key])
    levels = [round(rate * _LEVELS) for rate in rates]
    if len(set(levels)) == 1:
        return _cut(bits, levels[0], dtype)
    return torch.cat([_cut(bits[min(i, len(bits) - 1)][None], level, dtype) for i, level in enumerate(levels)])


def _cut(bits: Tensor, level: int, dtype: torch.dtype) -> Tensor:
    if level == 0:
        return torch.ones_like(bits, dtype=dtype)
    return (bits >= _LOWEST + level).to(dtype).mul_(_LEVELS / (_LEVELS - level))
