"""Where things are: the config tree, the cache, and the file names inside a run folder."""

from __future__ import annotations

import os
from pathlib import Path

METRICS_FILE = "metrics.jsonl"
RESULT_FILE = "result.json"
ADAPTER_DIR = "adapter"
PREDICTIONS_DIR = "predictions"
CHECKPOINTS_DIR = "checkpoints"


def conf_dir() -> Path:
    """The Hydra config tree: the copy shipped inside a wheel, else `conf/` of the checkout."""
    package = Path(__file__).resolve().parent
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"


def cache_dir() -> Path:
    """The folder for things that can be made again (twins, baselines, tokens); `EMOTION_SWEEPS_CACHE` moves it."""
    root = os.environ.get("EMOTION_SWEEPS_CACHE")
    if root:
        return Path(root).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return Path(base).expanduser() / "emotion_sweeps"
