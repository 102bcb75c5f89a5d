"""One claimed trial run as a Hydra job: composed, run through Hydra's `run_job`, its end turned into an `Outcome`.

Hydra writes `.hydra/` and the log into the trial's folder (`<sweep dir>/<number>`, replicates in `seed_<k>` below it);
a failure leaves `error.txt` with class and traceback there. A transient failure is tried again in the same folder, so
that a trial goes on from its last checkpoint. A trial that had ended when its worker died is not trained again: its
`result.json` is taken.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from emotion_sweeps.config.translate import as_user_error
from emotion_sweeps.errors import UserError
from emotion_sweeps.handle import use_handle
from emotion_sweeps.sweeps.composer import Composer
from emotion_sweeps.sweeps.objectives import Objectives, finished_values, read_result
from emotion_sweeps.sweeps.pruning import Decision
from emotion_sweeps.sweeps.source import Claim, Outcome, SourceHandle, TrialSource
from emotion_sweeps.sweeps.storage import StorageFailure, as_storage_error, is_disk_full

log = logging.getLogger(__name__)
ERROR_FILE = "error.txt"
_TRANSIENT_TEXT = re.compile(r"CUDA|cuDNN|CUBLAS|NCCL|device-side|out of memory|timed out|temporarily|connection", re.I)
_TRANSIENT_CLASSES = (
    "OutOfMemoryError",
    "ConnectionError",
    "HTTPError",
    "ReadTimeout",
    "HfHubHTTPError",
    "UncompletedJobError",
)

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


class LeaseLost(Exception):
    """The trial was given to another worker while this one ran it."""


@dataclass(frozen=True)
class JobPolicy:
    """What is done with one claimed trial."""

    objectives: Objectives
    max_retries: int = 1
    replicates: int = 1


Execute = Callable[[SourceHandle, list[str], str], JobReturn]


class LocalJobs:
    """Runs a job in this process through Hydra's `run_job`."""

    def __init__(
        self, context: HydraContext, config: DictConfig, task: TaskFunction, sweep_dir: Path, composer: Composer
    ) -> None:
        self._context, self._config, self._task = context, config, task
        self._sweep_dir, self._composer = sweep_dir, composer

    def __call__(self, handle: SourceHandle, overrides: list[str], subdir: str) -> JobReturn:
        """Compose and run one job in `<sweep dir>/<subdir>`."""
        setup_globals()
        config = self._composer.take(overrides)
        hydra = config.hydra
        with read_write(hydra.job), open_dict(hydra.job), read_write(hydra.sweep), open_dict(hydra.sweep):
            hydra.job.id = str(handle.number)
            hydra.job.num = handle.number
            hydra.sweep.dir = str(self._sweep_dir)
            hydra.sweep.subdir = subdir
        try:
            with use_handle(handle):
                return run_job(
                    hydra_context=self._context,
                    task_function=self._task,
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
        finally:
            logging_conf, verbose = self._config.hydra.hydra_logging, self._config.hydra.verbose
            configure_log(logging_conf, verbose, execution_whitelist=self._context.execution_whitelist)


class JobRunner:
    """Runs claimed trials: retries, replicates, and what their ends mean."""

    def __init__(self, execute: Execute, sweep_dir: Path, policy: JobPolicy, composer: Composer) -> None:
        self._execute, self._sweep_dir = execute, sweep_dir
        self._policy, self._composer = policy, composer

    def run(self, claim: Claim, source: TrialSource, handle_made: Callable[[SourceHandle], None]) -> Outcome:
        """Run the trial to its end, a pause, or a failure.

        Args:
            handle_made: told of the handle before each job, so that a heartbeat can mark it lost.
        """
        if self._policy.replicates == 1:
            return self._with_retries(claim, source, handle_made, list(claim.overrides), f"{claim.number}")
        return self._replicates(claim, source, handle_made)

    def _replicates(self, claim: Claim, source: TrialSource, handle_made: Callable[[SourceHandle], None]) -> Outcome:
        """One job a seed; the trial's values are their means."""
        first = OmegaConf.select(self._composer.compose(claim.overrides), "seed")
        if not isinstance(first, int):
            raise UserError("sweep.replicates needs a whole number as `seed` in the config; there is none")
        values = {index: tuple(v) for index, v in claim.replicates.items()}
        for index in range(self._policy.replicates):
            if index in values:
                continue
            overrides = [*(o for o in claim.overrides if not o.startswith("seed=")), f"seed={first + index}"]
            one = replace(claim, replicate=index)
            outcome = self._with_retries(one, source, handle_made, overrides, f"{claim.number}/seed_{index}")
            if outcome.values is None or outcome.status != "complete":
                return outcome
            values[index] = outcome.values
            decision = source.replicate(claim, index, outcome.values)
            if decision is not Decision.GO and len(values) < self._policy.replicates:
                return Outcome("paused" if decision is Decision.PAUSE else "pruned", _means(list(values.values())))
        return Outcome("complete", _means(list(values.values())))

    def _with_retries(
        self,
        claim: Claim,
        source: TrialSource,
        handle_made: Callable[[SourceHandle], None],
        overrides: list[str],
        subdir: str,
    ) -> Outcome:
        folder = self._sweep_dir / subdir
        if claim.attempt > 1:
            adopted = finished_values(read_result(folder), self._policy.objectives)
            if adopted is not None:
                log.info("trial %s had ended when its worker died; its result is taken", claim.number)
                return Outcome("complete", adopted)
        for attempt in range(self._policy.max_retries + 1):
            handle = SourceHandle(source, claim)
            handle_made(handle)
            try:
                return self._once(handle, overrides, subdir)
            except Exception as error:
                outcome = self._failed(error, handle, folder)
                if attempt == self._policy.max_retries or not is_transient(error):
                    return outcome
                log.warning("trial %s: %s: %s; trying again", claim.number, outcome.error_class, outcome.error_message)
        raise AssertionError("unreachable")

    def _once(self, handle: SourceHandle, overrides: list[str], subdir: str) -> Outcome:
        ret = self._execute(handle, overrides, subdir)
        if handle.lost:
            raise LeaseLost
        returned = ret._return_value
        if ret.status is not JobStatus.COMPLETED:
            if type(returned).__name__ != "TrialPruned":
                raise returned
            return Outcome("pruned", None)
        if handle.verdict is Decision.PAUSE:
            return Outcome("paused")
        values = self._policy.objectives.values_of(returned, handle.metrics)
        return Outcome("pruned" if handle.verdict is Decision.STOP else "complete", values)

    def _failed(self, error: Exception, handle: SourceHandle, folder: Path) -> Outcome:
        if isinstance(error, LeaseLost) or handle.lost:
            raise LeaseLost from None
        if isinstance(error, StorageFailure):
            raise error
        if is_disk_full(error):
            raise as_storage_error(error, str(folder)) or error
        write_error(folder, error)
        mistake = as_user_error(error)
        status: Any = "failed" if mistake is None else "infeasible"
        lines = str(mistake or error).strip().splitlines()
        return Outcome(status, None, type(error).__name__, lines[0][:500] if lines else "")


def _means(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))


def is_transient(error: BaseException) -> bool:
    """Whether the same trial may well succeed when it is run again: devices, memory, network, files."""
    if not isinstance(error, Exception) or as_user_error(error) is not None:
        return False
    if isinstance(error, (MemoryError, OSError)) and not isinstance(error, _LASTING):
        return True
    if type(error).__name__ in _TRANSIENT_CLASSES or getattr(error, "transient", False):
        return True
    return isinstance(error, RuntimeError) and _TRANSIENT_TEXT.search(str(error)) is not None


def write_error(folder: Path, error: BaseException) -> None:
    """Append class and traceback to `error.txt` in the trial's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(traceback.format_exception(error))
    with open(folder / ERROR_FILE, "a", encoding="utf-8") as file:
        file.write(f"{datetime.now().isoformat(timespec='seconds')} {type(error).__name__}: {error}\n\n{text}\n")
