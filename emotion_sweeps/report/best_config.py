"""best_config.yaml: the winner's resolved config as a primary config that Hydra types and runs as it stands.

    python -m emotion_sweeps.train --config-dir FOLDER --config-name best_config

How the study was searched is left out (it may hold a storage URL with a password), and so is Hydra's own part. Paths
below the working folder become relative to it; others are kept, because the run needs its data, and named on top.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emotion_sweeps.report.results import RunRow
from emotion_sweeps.report.texts import plain

NAME = "best_config"
_LEFT_OUT = ("hydra", "sweep", "defaults")


def command(out_dir: Path, base: Path) -> str:
    """The command that runs the file again from `base`."""
    folder = _relative(str(out_dir.resolve()), base)
    return f"python -m emotion_sweeps.train --config-dir {shlex.quote(folder)} --config-name {NAME}"


def render(run: RunRow, base: Path, run_command: str) -> str:
    """The file's text.

    Args:
        base: the working folder, from which relative paths are read.
    """
    import yaml

    config = {key: value for key, value in run.config.items() if key not in _LEFT_OUT}
    elsewhere: list[str] = []
    body = _portable(config, base, "", elsewhere)
    header = [
        "The configuration that ranks first, resolved.",
        f"From {plain(run.name)} in {plain(_relative(str(run.folder.resolve()), base))}.",
        f"Run it from the folder that relative paths start from: {plain(run_command, 500)}",
    ]
    if elsewhere:
        header.append(f"Paths of the machine that trained it, to be changed on another: {plain(', '.join(elsewhere))}")
    dumped = yaml.safe_dump({"defaults": ["schema", "_self_"], **body}, sort_keys=False, allow_unicode=True, width=120)
    return "".join(f"# {line}\n" for line in header) + dumped


def _portable(value: Any, base: Path, path: str, elsewhere: list[str]) -> Any:
    """`value` with paths relative where they can be, and nothing left that OmegaConf would interpolate."""
    if isinstance(value, Mapping):
        return {str(k): _portable(v, base, f"{path}.{k}".lstrip("."), elsewhere) for k, v in value.items()}
    if isinstance(value, list):
        return [_portable(item, base, path, elsewhere) for item in value]
    if not isinstance(value, str):
        return value
    if len(value) > 1 and os.path.isabs(value) and os.path.exists(value):
        value = _relative(value, base)
        if os.path.isabs(value):
            elsewhere.append(path)
    return value.replace("${", "\\${")


def _relative(path: str, base: Path) -> str:
    """`path` as seen from `base` where it lies below it."""
    resolved = Path(path)
    return str(resolved.relative_to(base.resolve())) if resolved.is_relative_to(base.resolve()) else path
