"""Step by step against transformers' own schedulers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import TrainingArguments, get_scheduler

from emotion_sweeps.training.schedules import SCHEDULES, make_schedule, multiplier, warmup_steps

PEAK = 2e-3
SHAPES: list[tuple[str, dict[str, float], dict[str, Any]]] = [
    ("linear", {}, {}),
    ("cosine", {}, {}),
    ("cosine", {"num_cycles": 1.5}, {"num_cycles": 1.5}),
    ("polynomial", {}, {"lr_end": 0.0}),
    ("polynomial", {"power": 2.0, "final_ratio": 0.1}, {"power": 2.0, "lr_end": 0.1 * PEAK}),
    ("constant", {}, {}),
    ("constant_with_warmup", {}, {}),
]


@pytest.mark.parametrize("num_steps, warmup", [(20, 0), (20, 5), (20, 0.25), (7, 0.06), (1, 0)])
@pytest.mark.parametrize("name, shape, theirs", SHAPES)
def test_equal_to_transformers(
    name: str, shape: dict[str, float], theirs: dict[str, Any], num_steps: int, warmup: float
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    count = warmup_steps(warmup, num_steps)
    scheduler = get_scheduler(name, optimizer, count, num_steps, scheduler_specific_kwargs=theirs)
    schedule = make_schedule(name, num_steps=num_steps, warmup=warmup, **shape)
    for step in range(num_steps):
        assert PEAK * schedule(step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12, abs=1e-18)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("warmup", [0, 0.06, 0.5, 1, 3, 10])
def test_warmup_is_resolved_as_trainer_does(warmup: float) -> None:
    args = TrainingArguments(output_dir="unused", warmup_steps=warmup, use_cpu=True)
    assert warmup_steps(warmup, 101) == args.get_warmup_steps(101)


@pytest.mark.parametrize("name", SCHEDULES)
def test_it_stays_within_the_peak_also_past_the_end(name: str) -> None:
    schedule = make_schedule(name, num_steps=10, warmup=3)
    assert all(0 <= schedule(step) <= 1 for step in range(15))


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="linear, cosine"):
        multiplier("sawtooth", 5, num_steps=10, num_warmup_steps=0)
