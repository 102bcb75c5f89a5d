"""Where a study's trials go, and how long a trial is, by the config."""

from __future__ import annotations

import math
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps import studies
from emotion_sweeps.sweeps.storage import load_study, open_storage

HYDRA_DEFAULT_DIR = "${now:"  # hydra.sweep.dir by the clock: nobody has set it


def folders(config: DictConfig) -> studies.FolderOf:
    """The folder of a study by its name: below `multirun/`, or the one folder that the user gave as hydra.sweep.dir."""
    raw = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    assert isinstance(raw, dict)
    if HYDRA_DEFAULT_DIR in str(raw["dir"]):
        return lambda name: Path("multirun").absolute() / name.replace("/", "_")
    given = Path(str(config.hydra.sweep.dir)).absolute()
    return lambda name: given


def fresh_name(name: str, storage: str | None, folder_of: studies.FolderOf) -> str:
    """`name`, or the first of `name-2`, `name-3`, ... that no study has."""
    if folder_of("a") == folder_of("b"):
        if (folder_of(name) / studies.MARKER_FILE).exists():
            raise UserError(f"sweep.fresh=true: hydra.sweep.dir={folder_of(name)} holds a study; give another folder")
        return name
    number = 1
    while True:
        candidate = name if number == 1 else f"{name}-{number}"
        if not folder_of(candidate).exists():
            if storage is None or load_study(open_storage(storage, folder_of(candidate), candidate), candidate) is None:
                return candidate
        number += 1


def set_sweep_dir(config: DictConfig, sweep_dir: Path) -> None:
    """Make the study's folder the sweep's, for this process and for every job composed from this config."""
    with read_write(config.hydra.sweep), open_dict(config.hydra.sweep):
        config.hydra.sweep.dir = str(sweep_dir)
        config.hydra.sweep.subdir = "${hydra.job.num}"


def max_evaluations(config: DictConfig) -> int | None:
    """Evaluations of a whole trial by its config, None where only its data tell."""
    epochs = OmegaConf.select(config, "training.epochs")
    if epochs is None or OmegaConf.select(config, "training.max_steps") is not None:
        return None
    return max(1, math.ceil(float(epochs) * float(OmegaConf.select(config, "training.evals_per_epoch") or 1)))
