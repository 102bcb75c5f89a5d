"""The optimizer: any of transformers' names, with the adapter and the fresh head at learning rates of their
own.

Weight decay acts on matrices only, not on biases and norms. A fresh head needs about ten times the adapter's
rate: with one rate for both, a short trial learns nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_optimizer import is_optimizer_factory
from transformers.training_args import OptimizerNames

from emotion_sweeps.errors import UserError, did_you_mean

OPTIMIZERS = tuple(str(name.value) for name in OptimizerNames)
_OWN_GROUPS = ("params", "model", "optimizer_dict")  # optimizers that build their parameter groups themselves


def check_optimizer(name: str) -> str:
    """`name` itself when transformers' Trainer knows it.

    Raises:
        UserError: it does not.
    """
    if name not in OPTIMIZERS:
        raise UserError(
            f"training.optimizer: transformers has no optimizer {name!r}; one of {', '.join(OPTIMIZERS)}"
            f"{did_you_mean(name, OPTIMIZERS)}"
        )
    return name


def is_head(parameter: str, head_modules: Collection[str]) -> bool:
    """Whether the parameter of that dotted name belongs to a class head module."""
    return any(part in head_modules for part in parameter.split("."))


def parameter_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    head_learning_rate: float,
    weight_decay: float,
    head_modules: Collection[str],
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters: adapter and head, each with and without weight decay; empty ones
    left out."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (is_head(name, head_modules), parameter.ndim < 2)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": groups[key],
            "lr": head_learning_rate if key[0] else learning_rate,
            "weight_decay": 0.0 if key[1] else weight_decay,
        }
        for key in sorted(groups)
    ]


def build_optimizer(args: TrainingArguments, model: nn.Module, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer that `args.optim` names, over `groups`.

    Raises:
        UserError: its package is not installed, or it builds its own parameter groups.
    """
    name = str(args.optim.value if isinstance(args.optim, OptimizerNames) else args.optim)
    try:
        cls, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    except (ImportError, ValueError) as error:
        raise UserError(f"training.optimizer={name}: {error}") from error
    if is_optimizer_factory(cls) or any(key in kwargs for key in _OWN_GROUPS):
        raise UserError(
            f"training.optimizer={name} groups the parameters itself, so a head learning rate cannot be kept; "
            "use adamw_torch or another that takes parameter groups"
        )
    optimizer: torch.optim.Optimizer = cls(groups, **kwargs)
    return optimizer
