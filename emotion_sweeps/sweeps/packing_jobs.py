"""Runs jobs in packs: composes them, groups those that fit together, trains them, and replays each through Hydra.

Training happens outside of Hydra's `run_job`, many trials at once; then each trial's end goes through `run_job` with a
task that returns its value or raises its failure. So Hydra writes `.hydra/` and the log, calls the callbacks and makes
the JobReturn as for any job; only its start callback comes when the training is over. Jobs that cannot be packed run
through `run_job` as they are, and the reason is said.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from emotion_sweeps.config.compose import to_conf
from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.errors import UserError
from emotion_sweeps.handle import use_handle
from emotion_sweeps.notices import notice_once
from emotion_sweeps.sweeps.packing import differences, pack_key, why_alone
from emotion_sweeps.sweeps.packing_queue import JobQueue, Request

log = logging.getLogger(__name__)
OUR_TASK = "train.py"  # beside this package's __init__: the task function that trains one trial

Compose = Callable[[list[str]], DictConfig]


@dataclass
class PackLog:
    """What was packed, as the engine counted it."""

    packs: int = 0
    packed: list[int] = field(default_factory=list)  # numbers of jobs that trained in a pack
    alone: list[int] = field(default_factory=list)  # numbers of jobs that ran by themselves
    most_slots: int = 0
    ticks: int = 0
    trial_ticks: int = 0


@dataclass
class _Prepared:
    request: Request
    config: DictConfig
    conf: TrainConf | None = None
    place: Any = None
    reason: str | None = None  # why it runs alone
    key: str = ""


def trains_our_trials(task: TaskFunction) -> bool:
    """Whether the task function is this package's own; any other has to be called for each job."""
    code = getattr(task, "__code__", None)
    if code is None:
        return False
    own = Path(__file__).resolve().parents[1] / OUR_TASK
    return Path(code.co_filename).resolve() == own and code.co_name == "train"


class PackJobs:
    """Runs the jobs of a queue, packed where they can be.

    Args:
        compose: a job's overrides to its config, `hydra` node included.
        num_slots: trials at once; None probes.
        lock: held while Hydra's globals are used, where several threads compose.
    """

    def __init__(
        self,
        context: HydraContext,
        config: DictConfig,
        task: TaskFunction,
        compose: Compose,
        *,
        num_slots: int | None = None,
        sweep_dir: Path | None = None,
        lock: Any = None,
    ) -> None:
        self._context, self._config, self._task, self._compose = context, config, task, compose
        self._num_slots, self._sweep_dir = num_slots, sweep_dir
        self._lock = contextlib.nullcontext() if lock is None else lock
        self._not_ours = None if trains_our_trials(task) else "its task function is not emotion_sweeps.train"
        self._refused: dict[str, str] = {}  # pack keys that met a model without a packed form
        self.held: list[_Prepared] = []
        self.log = PackLog()

    def run(self, queue: JobQueue) -> PackLog:
        """Run until the queue is done."""
        while True:
            prepared = self.held.pop(0) if self.held else self._next(queue, block=True)
            if prepared is None:
                return self.log
            self._run_from(queue, prepared)

    def _run_from(self, queue: JobQueue, first: _Prepared) -> None:
        if first.reason is None and first.key in self._refused:
            first.reason = self._refused[first.key]
        if first.reason is not None:
            self._run_alone(queue, first)
            return
        from emotion_sweeps.trial.pack import CannotPack, TrialPack

        assert first.conf is not None
        left = queue.left()
        waiting = 1 + sum(held.key == first.key for held in self.held) + (left or 0)
        try:
            pack = TrialPack(first.conf, num_slots=self._num_slots, expected=None if left is None else waiting)
        except CannotPack as error:
            self._refused[first.key] = first.reason = str(error)
            self._run_alone(queue, first)
        except (UserError, OSError):  # its input cannot be used: alone it fails in its own folder
            self._run_alone(queue, first)
        else:
            self._run_pack(queue, pack, first)

    def _run_pack(self, queue: JobQueue, pack: Any, first: _Prepared) -> None:
        from emotion_sweeps.trial.pack import PackJob

        mine = [first]
        patience = 1 + len(self.held)

        def next_job() -> PackJob | None:
            prepared = mine.pop() if mine else self._fitting(queue, first, patience)
            if prepared is None:
                return None
            assert prepared.conf is not None
            return PackJob(prepared.conf, prepared.place, prepared.request.handle, prepared)

        def ended(job: PackJob, end: Any) -> None:
            prepared: _Prepared = job.token
            self.log.packed.append(prepared.request.number)
            queue.answer(prepared.request, self._replay(prepared, end))

        self.log.packs += 1
        counts = pack.run(next_job, ended, on_slots=queue.open)
        self.log.ticks += counts.ticks
        self.log.trial_ticks += counts.trial_ticks
        self.log.most_slots = max(self.log.most_slots, counts.most_slots)

    def _fitting(self, queue: JobQueue, first: _Prepared, patience: int) -> _Prepared | None:
        """The next job that fits into the running pack; others are held until it is empty."""
        for index, held in enumerate(self.held):
            if held.key == first.key and held.reason is None:
                return self.held.pop(index)
        if queue.left() is None and len(self.held) >= patience + 1:
            return None  # let the pack run empty: others have waited
        while (prepared := self._next(queue, block=False)) is not None:
            if prepared.reason is None and prepared.key == first.key:
                return prepared
            if prepared.reason is None and prepared.conf is not None and first.conf is not None:
                log.info(
                    "trial %s waits for a pack of its own: %s differ",
                    prepared.request.number,
                    ", ".join(differences(prepared.conf, first.conf)),
                )
            self.held.append(prepared)
        return None

    # one job

    def _next(self, queue: JobQueue, *, block: bool) -> _Prepared | None:
        """The next job, composed; one that cannot be composed fails by itself."""
        while (request := queue.next(block=block)) is not None:
            try:
                with self._lock:
                    return self._prepare(request)
            except Exception as error:
                queue.refuse(request, error)
        return None

    def _prepare(self, request: Request) -> _Prepared:
        setup_globals()
        config = self._compose(request.overrides)
        hydra = config.hydra
        with read_write(hydra), open_dict(hydra):
            hydra.job.id, hydra.job.num = str(request.number), request.number
            if self._sweep_dir is not None:
                hydra.sweep.dir = str(self._sweep_dir)
            if request.subdir is not None:
                hydra.sweep.subdir = request.subdir
        prepared = _Prepared(request, config, reason=self._not_ours)
        if prepared.reason is None:
            self._read(prepared)
        return prepared

    def _read(self, prepared: _Prepared) -> None:
        """Conf, place and pack of a job; a mistake in them is left to the job itself."""
        from emotion_sweeps.trial.place import TrialPlace

        config, before = prepared.config, HydraConfig.instance().cfg
        try:
            HydraConfig.instance().set_config(config)
            folder = os.path.join(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir))
            with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
                config.hydra.runtime.output_dir = os.path.abspath(folder)
            if config.hydra.job.chdir or config.hydra.job.env_set:
                prepared.reason = "hydra.job.chdir and env_set are for one job at a time"
                return
            prepared.place = TrialPlace.from_hydra(config.hydra)
            prepared.conf = to_conf(config)
            prepared.reason = why_alone(prepared.conf)
            prepared.key = pack_key(prepared.conf)
        except UserError:
            prepared.reason = "its config is not valid"
        finally:
            HydraConfig.instance().cfg = before

    def _run_alone(self, queue: JobQueue, prepared: _Prepared) -> None:
        if prepared.reason is not None:
            notice_once(f"hydra/launcher=packed: trial {prepared.request.number} runs alone: {prepared.reason}")
        self.log.alone.append(prepared.request.number)
        queue.open(1)
        with use_handle(prepared.request.handle):
            result = self._hydra_job(prepared.config, self._task)
        queue.answer(prepared.request, result)

    def _replay(self, prepared: _Prepared, end: Any) -> JobReturn:
        def told(cfg: DictConfig) -> Any:
            if isinstance(end, Exception):
                raise end
            return end

        with self._lock:
            return self._hydra_job(prepared.config, told)

    def _hydra_job(self, config: DictConfig, task: TaskFunction) -> JobReturn:
        try:
            return run_job(
                hydra_context=self._context,
                task_function=task,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        finally:
            hydra = self._config.hydra
            whitelist = self._context.execution_whitelist
            configure_log(hydra.hydra_logging, hydra.verbose, execution_whitelist=whitelist)


def say(packed: PackLog) -> None:
    """One line on what was packed."""
    if packed.packed:
        each = packed.trial_ticks / max(1, packed.ticks)
        log.info(
            "%d trials in %d packs (%.1f at once on average, at most %d), %d alone",
            len(packed.packed), packed.packs, each, packed.most_slots, len(packed.alone),
        )  # fmt: skip
