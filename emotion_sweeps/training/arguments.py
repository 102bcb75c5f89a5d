"""transformers' TrainingArguments for a trial: everything that the project decides itself is switched off in
it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from transformers import TrainingArguments

from emotion_sweeps.training.optimizer import check_optimizer

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def training_arguments(
    make: Callable[..., Arguments],
    *,
    output_dir: Path | str,
    device: torch.device,
    precision: str,
    seed: int,
    num_steps: int,
    micro_batch_size: int,
    learning_rate: float,
    optimizer: str,
    max_grad_norm: float | None,
    gradient_checkpointing: bool,
) -> Arguments:
    """What `make` (TrainingArguments, or a function that fills in a subclass) gives for a trial on `device`.

    Gradient accumulation is filled in by the trainer, which knows the number of processes. Logging,
    evaluation and saving follow the plan's steps, so transformers' strategies are off; its NaN filter would
    hide a divergence.
    """
    args = make(
        output_dir=str(output_dir),
        use_cpu=device.type == "cpu",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        seed=seed,
        max_steps=num_steps,
        per_device_train_batch_size=micro_batch_size,
        learning_rate=learning_rate,
        optim=check_optimizer(optimizer),
        max_grad_norm=max_grad_norm or 0.0,
        activation_checkpointing=gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if gradient_checkpointing else None,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        report_to=[],
        log_level="warning",
        disable_tqdm=True,
    )
    _settle_device(args, device)
    return args


def _settle_device(args: TrainingArguments, device: torch.device) -> None:
    """Keep transformers from spreading over every visible GPU (DataParallel) and from taking the first one.

    Under torchrun each process has the device that its rank says.
    """
    if device.type != "cuda" or args.world_size > 1:
        return
    args._n_gpu = 1
    if device.index:
        args.__dict__["_setup_devices"] = device
        torch.cuda.set_device(device)
