"""Learning-rate schedules in closed form: the share of the peak rate at a step, a pure function.

Equal to transformers' `get_scheduler` step by step (a test holds it), but without an object that has to be
stepped: a pack evaluates it for trials that stand at different steps. Step 0 is the first optimizer step.

    warm-up     step / num_warmup_steps
    linear      remaining share of the steps after the warm-up
    cosine      (1 + cos(2 pi num_cycles progress)) / 2
    polynomial  (1 - final_ratio) * (1 - progress)**power + final_ratio
"""

from __future__ import annotations

import math
from collections.abc import Callable

SCHEDULES = ("linear", "cosine", "polynomial", "constant", "constant_with_warmup")


def warmup_steps(warmup: float, num_steps: int) -> int:
    """Number of warm-up steps: `warmup` itself from 1 on, else that share of all steps, rounded up."""
    return int(warmup) if warmup >= 1 else math.ceil(num_steps * warmup)


def multiplier(
    name: str,
    step: int,
    *,
    num_steps: int,
    num_warmup_steps: int,
    num_cycles: float = 0.5,
    power: float = 1.0,
    final_ratio: float = 0.0,
) -> float:
    """The learning rate of `step` as a share of the peak rate.

    Args:
        name: one of `SCHEDULES`; `constant` has no warm-up.
        num_cycles: cosine only.
        power: polynomial only.
        final_ratio: polynomial only, the share that is left at the last step.
    """
    if name == "constant":
        return 1.0
    if step < num_warmup_steps:
        return step / max(1, num_warmup_steps)
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    if name == "constant_with_warmup":
        return 1.0
    if name == "linear":
        return max(0.0, 1.0 - progress)
    if name == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(2.0 * math.pi * num_cycles * progress)))
    if name == "polynomial":
        return float((1.0 - final_ratio) * max(0.0, 1.0 - progress) ** power + final_ratio)
    raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name}")


def make_schedule(name: str, *, num_steps: int, warmup: float, **shape: float) -> Callable[[int], float]:
    """`multiplier` with everything but the step filled in."""
    num_warmup_steps = warmup_steps(warmup, num_steps)

    def schedule(step: int) -> float:
        return multiplier(name, step, num_steps=num_steps, num_warmup_steps=num_warmup_steps, **shape)

    return schedule
