"""Registration of the schema with Hydra's ConfigStore, and of the one resolver that `conf/` uses."""

from __future__ import annotations

import re

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from emotion_sweeps.config.schema import TrainConf


def slug(path: object) -> str:
    """A short name from a hub id or folder: `FacebookAI/xlm-roberta-base` -> `xlm_roberta_base`."""
    last = str(path or "").rstrip("/").rsplit("/", 1)[-1].lower()
    return re.sub(r"[^0-9a-z]+", "_", last).strip("_") or "custom"


def register() -> None:
    """Make `schema` and the `slug` resolver known; safe to call again."""
    ConfigStore.instance().store(name="schema", node=TrainConf, replace=True)
    OmegaConf.register_resolver("slug", slug, replace=True)
