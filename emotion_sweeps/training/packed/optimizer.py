"""AdamW and clipping over trials: every hyper-parameter is a vector with one number a trial.

    g_t <- g_t * min(1, max_norm_t / (|g_t| + 1e-6))
    w <- w (1 - lr_t wd_t);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    w <- w - lr_t / (1 - b1^k_t) * m / (sqrt(v) / sqrt(1 - b2^k_t) + eps)

the same as torch.optim.AdamW on each trial alone (a test holds it), with learning rates of adapter and head of their
own and no decay on vectors, as `training.optimizer.parameter_groups`. Rows never mix: a trial that is not a number
stays alone, and zero padding stays zero. About ten elementwise passes over `(num_slots, size)` for any depth.
Kingma & Ba, arXiv 1412.6980; Loshchilov & Hutter, arXiv 1711.05101.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emotion_sweeps.lora.packed_store import SlotStore

PACKED_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")  # names of transformers' Trainer that are this update


@dataclass(frozen=True)
class StepOf:
    """One trial's numbers for one optimizer step."""

    slot: int
    number: int  # of this step, from 1
    adapter_rate: float
    head_rate: float
    weight_decay: float
    max_norm: float | None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


def gradient_norms(gradients: Tensor) -> Tensor:
    """The norm of each trial's gradient, `(num_slots,)`; padding adds zeros."""
    norms: Tensor = torch.linalg.vector_norm(gradients, dim=1)
    return norms


@torch.no_grad()
def optimizer_step(store: SlotStore, steps: Sequence[StepOf]) -> Tensor:
    """Clip, update and zero the gradients of the trials in `steps`; the others are not touched.

    Returns:
        gradient norms before clipping, one for each of `steps`, on the device; nothing waits for it.
    """
    slots = [step.slot for step in steps]
    everyone = slots == list(range(store.num_slots))
    index = None if everyone else torch.tensor(slots, device=store.buffers["weights"].device)
    names = ("weights", "gradients", "exp_avg", "exp_avg_sq")
    rows = [store.buffers[name] if index is None else store.buffers[name].index_select(0, index) for name in names]
    norms = _update(store, rows, steps)
    if index is not None:
        for name, changed in zip(names, rows, strict=True):
            store.buffers[name].index_copy_(0, index, changed)
    return norms


def _update(store: SlotStore, rows: Sequence[Tensor], steps: Sequence[StepOf]) -> Tensor:
    weights, gradients, mean, square = rows
    columns = _columns(steps, weights)
    norms = gradient_norms(gradients)
    factors = (columns["max_norm"].squeeze(1) / (norms + 1e-6)).clamp_(max=1.0)
    gradients.mul_(factors.unsqueeze(1))
    mean.mul_(columns["beta1"]).addcmul_(gradients, columns["one_less_beta1"])
    square.mul_(columns["beta2"]).addcmul_(gradients * gradients, columns["one_less_beta2"])
    update = torch.div(mean, square.sqrt().mul_(columns["root2"]).add_(columns["eps"]))
    layout = store.layout
    parts = (
        ("adapter", slice(0, layout.adapter_size), True),
        ("head", slice(layout.adapter_size, layout.decayed_size), True),
        ("head", slice(layout.decayed_size, layout.size), False),
    )
    for part, where, decayed in parts:
        if where.start == where.stop:
            continue
        if decayed:
            weights[:, where].mul_(columns[f"{part}_keep"])
        weights[:, where].addcmul_(update[:, where], columns[f"{part}_size"])
    gradients.zero_()
    return norms


def _columns(steps: Sequence[StepOf], like: Tensor) -> dict[str, Tensor]:
    """The trials' numbers as `(num_trials, 1)` columns, in one copy to the device."""
    table: dict[str, list[float]] = {
        "max_norm": [float("inf") if step.max_norm is None else step.max_norm for step in steps],
        "beta1": [step.betas[0] for step in steps],
        "one_less_beta1": [1 - step.betas[0] for step in steps],
        "beta2": [step.betas[1] for step in steps],
        "one_less_beta2": [1 - step.betas[1] for step in steps],
        "root2": [(1 - step.betas[1] ** step.number) ** -0.5 for step in steps],
        "eps": [step.eps for step in steps],
        "adapter_keep": [1 - step.adapter_rate * step.weight_decay for step in steps],
        "head_keep": [1 - step.head_rate * step.weight_decay for step in steps],
        "adapter_size": [-step.adapter_rate / (1 - step.betas[0] ** step.number) for step in steps],
        "head_size": [-step.head_rate / (1 - step.betas[0] ** step.number) for step in steps],
    }
    stacked = torch.tensor(list(table.values()), dtype=like.dtype).to(like.device, non_blocking=True)
    return {name: row.unsqueeze(1) for name, row in zip(table, stacked, strict=True)}
