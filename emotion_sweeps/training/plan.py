"""When things happen in a trial: how many optimizer steps, how many micro-batches each, after which ones to
evaluate.

Pure arithmetic, shared by both engines. The order of the examples is `data.batches.plan_epoch`'s; an
incomplete global batch is the last of its epoch, so every other one has the same number of micro-batches.
"""

from __future__ import annotations

import math

from emotion_sweeps.data.batches import num_steps as steps_of_epochs


def steps_per_epoch(num_examples: int, global_batch_size: int) -> int:
    """Optimizer steps in one pass over the examples."""
    return math.ceil(num_examples / global_batch_size)


def total_steps(num_examples: int, global_batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps of the whole trial; `max_steps`, where given, replaces `epochs`."""
    return steps_of_epochs(num_examples, global_batch_size, epochs) if max_steps is None else max_steps


def accumulation_steps(global_batch_size: int, micro_batch_size: int, num_processes: int = 1) -> int:
    """Micro-batches that each process runs for a full global batch."""
    return math.ceil(math.ceil(global_batch_size / num_processes) / micro_batch_size)


def evaluation_steps(num_steps: int, epoch_steps: int, evals_per_epoch: float) -> list[int]:
    """The steps after which the validation part is evaluated: evenly over each epoch, and always the last
    one."""
    steps = {
        max(1, math.floor(k * epoch_steps / evals_per_epoch + 0.5))
        for k in _until(num_steps, epoch_steps, evals_per_epoch)
    }
    return sorted({step for step in steps if step <= num_steps} | {num_steps})


def _until(num_steps: int, epoch_steps: int, evals_per_epoch: float) -> range:
    return range(1, math.ceil(num_steps * evals_per_epoch / epoch_steps) + 1)
