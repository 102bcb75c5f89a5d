"""What a trial leaves beside its adapter: result.json, strict JSON, written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from emotion_sweeps.config.compose import as_container
from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.paths import RESULT_FILE
from emotion_sweeps.tracking.records import jsonl_safe

SCHEMA = 1
PACKAGES = (
    "emotion-sweeps",
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "optuna",
    "hydra-core",
    "datasets",
    "wandb",
)


def versions() -> dict[str, str]:
    """The installed versions that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def public_config(conf: TrainConf) -> dict[str, Any]:
    """The resolved config without the sweep's settings: they are no part of a trial, and a storage URL may hold a
    password."""
    return {key: value for key, value in as_container(conf).items() if key != "sweep"}


def settings_of(conf: TrainConf) -> dict[str, Any]:
    """The part of result.json that follows from the config alone."""
    lora = conf.lora
    return {
        "model": conf.model.name,
        "task": conf.task.name,
        "augment": conf.augment.name,
        "scheduler": conf.scheduler.name,
        "lora": {
            "r": lora.r,
            "alpha": lora.effective_alpha,
            "dropout": lora.dropout,
            "target_modules": lora.target_modules,
            "use_rslora": lora.use_rslora,
            "use_dora": lora.use_dora,
            "bias": lora.bias,
            "learning_rate": lora.learning_rate,
            "head_learning_rate": lora.effective_head_learning_rate,
            "weight_decay": lora.weight_decay,
        },
        "config": public_config(conf),
        "seeds": {"seed": conf.seed, "split_seed": conf.data.split_seed},
        "stand_in": conf.model.twin is not None,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write strict JSON (non-finite numbers as null) through a temporary file, so that no half file is ever seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(jsonl_safe(content), indent=2, ensure_ascii=False, allow_nan=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)


def write_result(run_dir: Path, content: dict[str, Any]) -> Path:
    """Write `content` as the trial's result.json."""
    path = run_dir / RESULT_FILE
    write_json(path, {"schema": SCHEMA, **content})
    return path
