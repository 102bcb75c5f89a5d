"""The Hydra plugin `hydra/launcher=packed`: many LoRA trials trained at once on one frozen base. Light at import time.

Under our study sweeper a worker with slots claims trials and refills (`packing_worker.run_packed`); under any other
sweeper `launch()` feeds the slots from the list that it gets. Job numbers, `.hydra/`, output folders, logs, callbacks
and returns are those of any launcher; jobs without a packed form run one by one, with the reason said.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from emotion_sweeps.errors import UserError

if TYPE_CHECKING:
    from emotion_sweeps.sweeps.packing_jobs import PackLog

log = logging.getLogger(__name__)


@dataclass
class PackedLauncherConf:
    """`hydra.launcher` for `hydra/launcher=packed`."""

    _target_: str = "emotion_sweeps.sweeps.packed_launcher.PackedLauncher"
    slots: int | None = None  # trials at once; null: from memory and a short probe of step time


ConfigStore.instance().store(group="hydra/launcher", name="packed", node=PackedLauncherConf, provider="emotion_sweeps")


class PackedLauncher(Launcher):
    """Launches jobs in packs."""

    def __init__(self, slots: int | None = None) -> None:
        super().__init__()
        if slots is not None and slots < 1:
            raise UserError(f"hydra.launcher.slots must be >= 1, got {slots}; leave it out to have it found")
        self.slots = slots
        self.log: PackLog | None = None  # of the last launch: what was packed, counted by the engine
        self._context: HydraContext | None = None
        self._task: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands out; nothing heavy is imported until `launch`."""
        self.config, self._context, self._task = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; their results in order."""
        from emotion_sweeps.sweeps.packing_jobs import PackJobs, say
        from emotion_sweeps.sweeps.packing_queue import ListQueue

        config, context, task = self.config, self._context, self._task
        assert config is not None and context is not None and task is not None
        setup_globals()
        whitelist = context.execution_whitelist
        configure_log(config.hydra.hydra_logging, config.hydra.verbose, execution_whitelist=whitelist)
        Path(str(config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        log.info(f"Launching {len(job_overrides)} jobs in packs")
        for index, overrides in enumerate(job_overrides):
            log.info(f"\t#{initial_job_idx + index} : {' '.join(filter_overrides(overrides))}")
        queue = ListQueue(job_overrides, initial_job_idx)
        loader = context.config_loader
        jobs = PackJobs(
            context, config, task, lambda overrides: loader.load_sweep_config(config, overrides), num_slots=self.slots
        )
        self.log = jobs.run(queue)
        say(self.log)
        results = [request.result for request in queue.requests]
        assert all(result is not None for result in results)
        return [result for result in results if result is not None]
