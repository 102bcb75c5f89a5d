"""Which trials may share a pack, told from their configs alone, and why the others run alone. Free of torch.

A pack shares the base, the texts, the task, the targets and how it is computed; everything else is each trial's own:
rank, alpha, dropout, learning rates, scheduler, weight decay, clipping, seed, length, batch size, evaluations,
stopping, weighting, smoothing, focusing. Ranks go into buckets, so that a padded adapter is at most `RANK_FACTOR`
times a true one.
"""

from __future__ import annotations

import json
import math
from typing import Any

from emotion_sweeps.config.compose import as_container
from emotion_sweeps.config.schema import TrainConf

RANK_FACTOR = 2.0
PACKED_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")  # the update that is written over trials
_GENERATION = "label_generation"


def why_alone(conf: TrainConf) -> str | None:
    """Why a trial cannot share a pack; None when its config does not say so (its model may)."""
    lora, training, hardware = conf.lora, conf.training, conf.hardware
    reasons = (
        (lora.use_dora, "lora.use_dora=true: a magnitude a layer has no packed form"),
        (lora.bias != "none", f"lora.bias={lora.bias} trains weights of the shared base"),
        (bool(lora.modules_to_save), f"lora.modules_to_save={lora.modules_to_save} trains weights of the shared base"),
        (
            training.optimizer not in PACKED_OPTIMIZERS,
            f"training.optimizer={training.optimizer}: packs have AdamW ({', '.join(PACKED_OPTIMIZERS)})",
        ),
        (hardware.gradient_checkpointing, "hardware.gradient_checkpointing=true is for one trial at a time"),
        (hardware.device_map is not None, f"hardware.device_map={hardware.device_map} spreads one base over devices"),
        (hardware.precision == "fp16", "hardware.precision=fp16 scales the losses of all trials by one factor"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def pack_key(conf: TrainConf, rank_factor: float = RANK_FACTOR) -> str:
    """Trials with equal keys may share a pack."""
    parts = as_container(conf)
    task: dict[str, Any] = dict(parts["task"])
    if conf.task.name != _GENERATION:
        for own in ("weighting", "weight_cap", "label_smoothing", "focal_gamma"):
            del task[own]
    shared = {
        "model": parts["model"],
        "task": task,
        "data": parts["data"],
        "augment": parts["augment"],
        "hardware": parts["hardware"],
        "targets": parts["lora"]["target_modules"],
        "predict_test": conf.training.predict_test,
        "micro_batch_size": min(conf.hardware.micro_batch_size, conf.training.global_batch_size),
        "ranks": rank_bucket(conf.lora.r, rank_factor),
    }
    return json.dumps(shared, sort_keys=True)


def rank_bucket(rank: int, factor: float = RANK_FACTOR) -> int:
    """The number of the bucket: ranks in (factor**(k-1), factor**k] are in bucket k."""
    return math.ceil(round(math.log(rank, factor), 9))


def differences(conf: TrainConf, other: TrainConf) -> list[str]:
    """What keeps two trials out of one pack, by the names of the parts."""
    mine, its = json.loads(pack_key(conf)), json.loads(pack_key(other))
    return [name for name in mine if mine[name] != its[name]]
