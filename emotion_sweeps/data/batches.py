"""The order of batches: a pure function of seed, epoch and lengths, consumed by every engine.

An epoch is shuffled, cut into stretches of MEGABATCH batches, each stretch sorted by length and cut into
batches, and the batches shuffled again: about as little padding as a full sort, with batches that still
differ from epoch to epoch. The rows that fill no whole batch are drawn at random, not by length, and come
last. Cost: O(n log n), 0.1 s for a million rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MEGABATCH = 50


def plan_epoch(lengths: Sequence[int], global_batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch: length-bucketed, every index once, the incomplete batch last.

    Args:
        lengths: tokens of every example.
        global_batch_size: examples an optimizer step.
    """
    if global_batch_size < 1:
        raise ValueError(f"global_batch_size must be >= 1, got {global_batch_size}")
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    num_full = len(lengths) // global_batch_size
    full, rest = order[: num_full * global_batch_size], order[num_full * global_batch_size :]
    length_of = np.asarray(lengths, dtype=np.int64)
    batches: list[list[int]] = []
    for start in range(0, len(full), MEGABATCH * global_batch_size):
        stretch = full[start : start + MEGABATCH * global_batch_size]
        stretch = stretch[np.argsort(length_of[stretch], kind="stable")]
        batches += stretch.reshape(-1, global_batch_size).tolist()
    plan = [batches[position] for position in generator.permutation(len(batches)).tolist()]
    return [*plan, rest.tolist()] if len(rest) else plan


def split_micro_batches(batch: list[int], micro_batch_size: int) -> list[list[int]]:
    """A global batch in pieces of at most `micro_batch_size`, in order."""
    if micro_batch_size < 1:
        raise ValueError(f"micro_batch_size must be >= 1, got {micro_batch_size}")
    return [batch[start : start + micro_batch_size] for start in range(0, len(batch), micro_batch_size)]


def plan_evaluation(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches for evaluation: every index once, sorted by length."""
    order = np.argsort(np.asarray(lengths, dtype=np.int64), kind="stable")
    return split_micro_batches(order.tolist(), batch_size)


def num_steps(num_examples: int, global_batch_size: int, epochs: float) -> int:
    """Optimizer steps of a whole training; a part of an epoch is rounded up to whole steps."""
    return math.ceil(math.ceil(num_examples / global_batch_size) * epochs)
