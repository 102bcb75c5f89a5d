"""The Hydra plugin `hydra/sweeper=study`: its config and its class, free of Optuna and SQLAlchemy at import time.

The config carries the names of the official Optuna sweeper, so that a config written for that one works here; their
defaults point to the `sweep` group, where the knobs live (docs/sweeps.md has the table).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_optuna_sweeper import config as official  # registers hydra/sweeper/sampler
from omegaconf import MISSING, DictConfig


def _knob(name: str, default: str = "null") -> Any:
    return f"${{oc.select:sweep.{name},{default}}}"


@dataclass
class StudySweeperConf:
    """`hydra.sweeper` for `hydra/sweeper=study`."""

    _target_: str = "emotion_sweeps.sweeps.study_sweeper.StudySweeper"
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])
    sampler: official.SamplerConfig = MISSING
    direction: Any = None  # minimize, maximize or a list; null: from objective.metric
    storage: Any = _knob("storage")
    study_name: str | None = _knob("study_name")
    n_trials: int | None = _knob("n_trials")
    n_jobs: int = _knob("workers", "1")
    max_failure_rate: float = 1.0  # a larger share of failed trials makes the command fail at its end
    params: dict[str, str] | None = None
    custom_search_space: str | None = None  # dotted path of a function of (config, trial)


ConfigStore.instance().store(group="hydra/sweeper", name="study", node=StudySweeperConf, provider="emotion_sweeps")


class StudySweeper(Sweeper):
    """Searches a persistent Optuna study: every configuration once, pruned, resumable, shared by many workers."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._context: HydraContext | None = None
        self._task: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands out; nothing heavy is imported until `sweep`."""
        self.config, self._context, self._task = config, hydra_context, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Run the study to its end."""
        from emotion_sweeps.sweeps._sweeper import sweep

        assert self.config is not None and self._context is not None and self._task is not None
        sweep(self._settings, self._context, self._task, self.config, arguments)
