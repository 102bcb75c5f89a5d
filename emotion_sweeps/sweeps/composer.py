"""Composes the configs of trials, each once: the check before the start keeps what it composed until the trial runs."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.types import HydraContext
from omegaconf import DictConfig

from emotion_sweeps.config.translate import as_user_error
from emotion_sweeps.sweeps.identity import identity

MAX_KEPT = 256


class Composer:
    """Configs by their overrides, through Hydra's own composition of sweep jobs."""

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self._loader, self._config = context.config_loader, config
        self._kept: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a job, its `hydra` node included.

        Raises:
            UserError: it cannot be composed.
        """
        key = tuple(overrides)
        if key not in self._kept:
            composed = self._load(list(overrides))
            if len(self._kept) >= MAX_KEPT:
                return composed
            self._kept[key] = composed
        return self._kept[key]

    def take(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a job, to be changed by the caller."""
        kept = self._kept.pop(tuple(overrides), None)
        return self._load(list(overrides)) if kept is None else kept

    def identity(self, overrides: Sequence[str]) -> str:
        """The identity of the config of a job."""
        return identity(self.compose(overrides))

    def _load(self, overrides: list[str]) -> DictConfig:
        try:
            composed: DictConfig = self._loader.load_sweep_config(self._config, overrides)
            return composed
        except Exception as error:
            mistake = as_user_error(error)
            if mistake is None:
                raise
            raise mistake from None
