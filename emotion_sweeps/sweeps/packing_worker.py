"""A worker with several slots: its threads claim trials of a study, the main thread trains them in packs.

The threads are those of any launcher: the worker's own loop, leases, retries and replicates, one trial each at a time.
A trial that ends, is pruned or pauses frees its slot, whose thread claims the next at once.
"""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import optuna

from emotion_sweeps.sweeps.composer import Composer
from emotion_sweeps.sweeps.jobs import JobRunner
from emotion_sweeps.sweeps.packed_launcher import PackedLauncher
from emotion_sweeps.sweeps.packing_jobs import PackJobs, PackLog, say
from emotion_sweeps.sweeps.packing_queue import ThreadQueue, WatchedSource
from emotion_sweeps.sweeps.pool import visible_gpus
from emotion_sweeps.sweeps.storage import OpenStorage
from emotion_sweeps.sweeps.worker import Terminated, sigterm_as_exception, work
from emotion_sweeps.sweeps.worker_spec import AfterTrial, WorkerSpec, build_source, reopen

MOST_SLOTS_GPU, MOST_SLOTS_CPU = 32, 4  # where the number is not given; the probe opens as many of them as pay


class LockedComposer:
    """A composer that several threads may use: Hydra composes with globals."""

    def __init__(self, composer: Composer) -> None:
        self._composer = composer
        self.lock = threading.RLock()

    def compose(self, overrides: Any) -> Any:
        """The config of a job."""
        with self.lock:
            return self._composer.compose(overrides)

    def take(self, overrides: Any) -> Any:
        """The config of a job, to be changed by the caller."""
        with self.lock:
            return self._composer.take(overrides)

    def identity(self, overrides: Any) -> str:
        """The identity of the config of a job."""
        with self.lock:
            return self._composer.identity(overrides)


def run_packed(spec: WorkerSpec, opened: OpenStorage | None = None, composer: Composer | None = None) -> PackLog:
    """Train the study's trials in packs in this process until none is left.

    Raises:
        UserError: what stopped the sweep.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shared: Any = LockedComposer(composer or Composer(spec.context, spec.config))
    source = build_source(spec, opened or reopen(spec), shared)
    slots = PackedLauncher(spec.config.hydra.launcher.get("slots")).slots
    threads = slots or (MOST_SLOTS_GPU if visible_gpus() else MOST_SLOTS_CPU)
    queue = ThreadQueue(threads)
    watched = WatchedSource(source, queue)
    runner = JobRunner(queue.submit, spec.sweep_dir, spec.policy, shared)
    jobs = PackJobs(
        spec.context,
        spec.config,
        spec.task,
        shared.take,
        num_slots=slots,
        sweep_dir=spec.sweep_dir,
        lock=shared.lock,
    )

    def slot() -> None:
        work(watched, runner.run, lease_s=spec.search.lease_s, on_end=AfterTrial(spec, source))

    with sigterm_as_exception():
        _serve(queue, jobs, slot, threads)
    say(jobs.log)
    return jobs.log


def _serve(queue: ThreadQueue, jobs: PackJobs, slot: Any, threads: int) -> None:
    """Start the claiming threads, train here, and whatever happens give every unfinished trial back."""
    contexts = [contextvars.copy_context() for _ in range(threads)]  # Hydra's whitelist is a context variable
    running = [threading.Thread(target=context.run, args=(queue.run, slot), daemon=True) for context in contexts]
    for thread in running:
        thread.start()
    try:
        jobs.run(queue)
    except BaseException as error:
        told = error if isinstance(error, Exception) else Terminated()
        queue.stop(told)
        for thread in running:
            thread.join(timeout=20)
        raise
    for thread in running:
        thread.join()
