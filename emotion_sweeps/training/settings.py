"""The plain values that both kinds of trial take, by keyword; typed here once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch


class Settings(TypedDict):
    """Keyword arguments of `solo.train_head` and `solo.train_generation`."""

    seed: int  # of dropout and of the order of batches
    device: torch.device
    precision: str  # fp32, bf16, fp16
    global_batch_size: int  # texts an optimizer step
    micro_batch_size: int  # texts a forward pass
    eval_batch_size: int
    epochs: float
    learning_rate: float  # of the adapter
    weight_decay: float
    scheduler: str
    warmup: float  # below 1 a share of the steps, from 1 a number of steps
    selection_metric: str  # chooses the weights that are kept
    on_record: Callable[[dict[str, Any]], None]
    max_steps: NotRequired[int | None]  # replaces epochs
    optimizer: NotRequired[str]  # adamw_torch
    max_grad_norm: NotRequired[float | None]  # 1.0; None does not clip
    num_cycles: NotRequired[float]  # cosine, .5
    power: NotRequired[float]  # polynomial, 1
    final_ratio: NotRequired[float]  # polynomial, 0
    evals_per_epoch: NotRequired[float]  # 1; .5 evaluates every other epoch
    early_stopping_patience: NotRequired[int | None]  # evaluations without a better selection metric
    should_stop: NotRequired[Callable[[], bool] | None]  # asked after each evaluation; True prunes the trial
    log_every: NotRequired[int]  # 10 steps
    gradient_checkpointing: NotRequired[bool]
    checkpoint_dir: NotRequired[Path | None]  # None writes no checkpoint
    resume_from: NotRequired[Path | None]  # a folder that `checkpoints.last_checkpoint` found
