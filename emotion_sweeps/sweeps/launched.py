"""Trials through Hydra's launchers (joblib, submitit, ray): a job a trial, `sweep.workers` out at a time.

This process claims, launches and tells how trials ended, one thread a slot, so no slot waits for a batch. The job finds
its trial by its job number, renews its lease, reports and asks for itself: while it waits in a queue this process keeps
the trial, and once it runs it lives on when this process dies.
"""

from __future__ import annotations

import contextvars
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from emotion_sweeps.errors import UserError
from emotion_sweeps.handle import use_handle
from emotion_sweeps.sweeps.composer import Composer
from emotion_sweeps.sweeps.jobs import JobRunner
from emotion_sweeps.sweeps.pool import run_pool
from emotion_sweeps.sweeps.pruning import Decision
from emotion_sweeps.sweeps.source import SourceHandle
from emotion_sweeps.sweeps.storage import OpenStorage
from emotion_sweeps.sweeps.worker import heartbeat, sigterm_as_exception, work
from emotion_sweeps.sweeps.worker_spec import AfterTrial, WorkerSpec, build_source, is_packed, reopen, run_worker


@dataclass(frozen=True)
class Returned:
    """What a launched job sends back beside the task's own value."""

    value: Any
    decision: str
    metrics: dict[str, Any]


class LaunchedTask:
    """The task function as it runs in a launched job: with its trial's handle and heartbeat around it."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec

    def __call__(self, cfg: DictConfig) -> Returned:
        """Run the user's task function on `cfg`."""
        spec = self.spec
        source = build_source(spec, reopen(spec), Composer(spec.context, spec.config))
        claim = source.join(int(HydraConfig.get().job.num))
        handle = SourceHandle(source, claim)
        try:
            with heartbeat(source, claim, spec.search.lease_s) as handle_made, use_handle(handle):
                handle_made(handle)
                value = spec.task(cfg)
        except Exception as error:
            error.add_note("in the launched job:\n" + "".join(traceback.format_exception(error)))
            raise
        finally:
            source.leave(claim)
        return Returned(value, handle.verdict.value, dict(handle.metrics))


class LauncherJobs:
    """Runs a job through a Hydra launcher; may be called from several threads."""

    def __init__(self, launcher: Any, spec: WorkerSpec) -> None:
        self._launcher, self._spec = launcher, spec

    def __call__(self, handle: SourceHandle, overrides: list[str], subdir: str) -> JobReturn:
        """Launch one job and wait for it."""
        folder = QuotedString(str(self._spec.sweep_dir), Quote.single).with_quotes()
        assert handle.number is not None
        (ret,) = self._launcher.launch([[*overrides, f"hydra.sweep.dir={folder}"]], initial_job_idx=handle.number)
        assert isinstance(ret, JobReturn)
        if ret.status is JobStatus.COMPLETED and isinstance(ret._return_value, Returned):
            returned = ret._return_value
            handle.verdict, handle.metrics = Decision(returned.decision), returned.metrics
            ret.return_value = returned.value
        return ret


class _OneAtATime:
    """A config loader for several threads: Hydra composes with globals. Pickled it is the loader itself."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._lock = threading.RLock()

    def load_sweep_config(self, *args: Any, **kwargs: Any) -> DictConfig:
        """The loader's own, one call at a time."""
        with self._lock:
            config: DictConfig = self._loader.load_sweep_config(*args, **kwargs)
            return config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._loader,)


def _itself(loader: Any) -> Any:
    return loader


def run_launched(spec: WorkerSpec, opened: OpenStorage, slots: int) -> None:
    """Run the study's trials through the configured launcher, `slots` at a time.

    Raises:
        UserError: what stopped a slot.
    """
    if is_packed(spec.config):
        run_pool(spec, slots) if slots > 1 else run_worker(spec, opened)
        return
    if spec.policy.replicates > 1:
        raise UserError("sweep.replicates > 1 runs in our own workers; take hydra/launcher=basic with sweep.workers=N")
    task: Any = LaunchedTask(spec)
    loader: Any = _OneAtATime(spec.context.config_loader)
    context = replace(spec.context, config_loader=loader)
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=spec.config)
    if "ray_launcher" in str(spec.config.hydra.launcher._target_):
        launcher.launch([], initial_job_idx=0)  # starts ray, which two threads may not do at once
    composer = Composer(spec.context, spec.config)
    source = build_source(spec, opened, composer)
    runner = JobRunner(LauncherJobs(launcher, spec), spec.sweep_dir, spec.policy, composer)

    def slot() -> None:
        work(source, runner.run, lease_s=spec.search.lease_s, on_end=AfterTrial(spec, source))

    with sigterm_as_exception():
        _in_threads(slot, slots)


def _in_threads(slot: Callable[[], None], slots: int) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            slot()
        except BaseException as error:
            errors.append(error)

    contexts = [contextvars.copy_context() for _ in range(slots)]  # Hydra's whitelist is a context variable
    threads = [threading.Thread(target=context.run, args=(run,), daemon=True) for context in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(timeout=0.5)
    if errors:
        raise errors[0]
