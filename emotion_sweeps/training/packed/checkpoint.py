"""Checkpoints of a trial in a pack, in the solo engine's format: either engine resumes what the other began.

Weights, best weights and progress are files of `training.checkpoints`; the moments are the state of a
torch.optim.AdamW, the schedule that of a LambdaLR, as transformers' Trainer writes and reads them. The order of the
parameters in the optimizer is that of the layout: adapter matrices, head matrices, head vectors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerState

from emotion_sweeps.lora.packed_model import PackedModel
from emotion_sweeps.lora.packed_store import Layout
from emotion_sweeps.training import checkpoints
from emotion_sweeps.training.engine import TrialPlan
from emotion_sweeps.training.packed.trial import PackTrial, Slot
from emotion_sweeps.training.progress import PRUNED, RUNNING

_OPTIMIZER, _SCHEDULER, _STATE = "optimizer.pt", "scheduler.pt", "trainer_state.json"  # transformers' names


def write_checkpoint(pack: PackedModel, index: int, slot: Slot, folder: Path) -> Path:
    """Write the whole state of the trial in slot `index` and remove its older checkpoint."""
    slot.bank_time()
    rank, step = slot.trial.rank, slot.step
    weights = pack.store.read(index, rank)
    partial = checkpoints.partial_folder(folder, step)
    save_file(weights, partial / checkpoints.WEIGHTS_FILE)
    save_file(slot.best_weights, partial / checkpoints.BEST_FILE)
    (partial / checkpoints.PROGRESS_FILE).write_text(json.dumps(slot.plan.progress.state()), encoding="utf-8")
    moments = {name: pack.store.read(index, rank, name) for name in ("exp_avg", "exp_avg_sq")}
    optimizer, schedule = _as_torch(pack.store.layout, slot.plan, weights, moments, step)
    torch.save(optimizer, partial / _OPTIMIZER)
    torch.save(schedule, partial / _SCHEDULER)
    state = TrainerState(
        global_step=step,
        epoch=slot.epoch,
        max_steps=slot.plan.progress.num_steps,
        train_batch_size=slot.plan.batches.micro_batch_size,
    )
    state.save_to_json(str(partial / _STATE))
    return checkpoints.publish(partial)


def _as_torch(
    layout: Layout, plan: TrialPlan, weights: dict[str, Tensor], moments: dict[str, dict[str, Tensor]], step: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """State dicts of the optimizer and the schedule that the solo engine would hold at this step."""
    parameters = {name: nn.Parameter(value) for name, value in weights.items()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for entry in layout.entries:
        groups.setdefault(entry.order, []).append(parameters[entry.name])
    head_rate = plan.head_learning_rate or plan.learning_rate
    optimizer = torch.optim.AdamW(
        [
            {
                "params": members,
                "lr": head_rate if in_head else plan.learning_rate,
                "weight_decay": 0.0 if vectors else plan.weight_decay,
            }
            for (in_head, vectors), members in sorted(groups.items(), key=lambda item: item[0])
        ]
    )
    schedule = LambdaLR(optimizer, plan.schedule)
    schedule.last_epoch, schedule._step_count = step, step + 1
    schedule._last_lr = [base * plan.schedule(step) for base in schedule.base_lrs]
    for group, rate in zip(optimizer.param_groups, schedule._last_lr, strict=True):
        group["lr"] = rate
    for name, parameter in parameters.items():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            **{kind: values[name] for kind, values in moments.items()},
        }
    return optimizer.state_dict(), schedule.state_dict()


def read_checkpoint(pack: PackedModel, index: int, trial: PackTrial, checkpoint: Path) -> dict[str, Tensor]:
    """Put a checkpoint into slot `index`, already loaded with the trial; the progress goes on.

    Returns:
        the best weights so far.
    """
    pack.store.write(index, checkpoints.read_weights(checkpoint))
    saved = torch.load(checkpoint / _OPTIMIZER, map_location="cpu", weights_only=True)["state"]
    for kind in ("exp_avg", "exp_avg_sq"):
        names = [entry.name for entry in pack.store.layout.entries]
        pack.store.write(index, {name: saved[i][kind] for i, name in enumerate(names)}, kind)
    best, state = checkpoints.read_progress(checkpoint)
    trial.plan.progress.load(state)
    if trial.plan.progress.status == PRUNED:  # it paused at a rung, and was asked for again
        trial.plan.progress.status = RUNNING
    return best


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done at a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])
