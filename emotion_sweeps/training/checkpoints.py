"""Checkpoints: the trained weights now and at the best evaluation, the optimizer, the random state, the
progress.

    checkpoints/checkpoint-<step>/  trainable.safetensors best.safetensors progress.json
                                    optimizer.pt scheduler.pt rng_state.pth trainer_state.json  (transformers'
                                    own)

Weights are the trainable parameters by name, so nothing of the base is written. A checkpoint is written under
another name and renamed when whole, then the older one is removed: a kill at any time leaves one that can be
resumed, and never more than two.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS_FILE = "trainable.safetensors"
BEST_FILE = "best.safetensors"
PROGRESS_FILE = "progress.json"
_PARTIAL = ".partial"


def trainable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the trainable parameters on the CPU, by name."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put `trainable_weights` back into the model that they came from."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)


def partial_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` is written until it is whole."""
    return folder / f"checkpoint-{step}{_PARTIAL}"


def partial_folder(folder: Path, step: int) -> Path:
    """`partial_path`, new and empty."""
    partial = partial_path(folder, step)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def write_progress(partial: Path, model: nn.Module, best: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """The project's own files of a checkpoint."""
    save_file(trainable_weights(model), partial / WEIGHTS_FILE)
    save_file(dict(best), partial / BEST_FILE)
    (partial / PROGRESS_FILE).write_text(json.dumps(state), encoding="utf-8")


def publish(partial: Path) -> Path:
    """Give a whole checkpoint its name and remove the ones before it."""
    final = partial.with_name(partial.name.removesuffix(_PARTIAL))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    for other in final.parent.glob("checkpoint-*"):
        if other != final:
            shutil.rmtree(other, ignore_errors=True)
    return final


def last_checkpoint(folder: Path | str) -> Path | None:
    """The newest whole checkpoint under `folder`, None where there is none."""
    whole = [path for path in Path(folder).glob("checkpoint-*") if not path.name.endswith(_PARTIAL)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def read_progress(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The best weights and the progress state of a checkpoint."""
    state = json.loads((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8"))
    return load_file(checkpoint / BEST_FILE), state


def read_weights(checkpoint: Path | str) -> dict[str, Tensor]:
    """The weights that training goes on from."""
    weights: dict[str, Tensor] = load_file(Path(checkpoint) / WEIGHTS_FILE)
    return weights
