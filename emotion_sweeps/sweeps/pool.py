"""`sweep.workers=N`: N fresh processes on this machine, each a solo worker of the same study.

Where there are several GPUs each worker gets one of its own through CUDA_VISIBLE_DEVICES; where there is none the CPU's
threads are shared out. A worker that is killed (by the kernel for memory, say) is replaced; its trial is taken over by
whichever worker asks next. The children end when this process does, however it ends.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton

from emotion_sweeps.errors import UserError
from emotion_sweeps.notices import notice_once
from emotion_sweeps.sweeps.worker import sigterm_as_exception
from emotion_sweeps.sweeps.worker_spec import WorkerSpec

log = logging.getLogger(__name__)
POLL_S = 0.1
GRACE_S = 20.0  # for a worker to give its trial back


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without importing torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [part.strip() for part in given.split(",") if part.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
    )
    return asked.stdout.split() if asked.returncode == 0 else []


def worker_environments(workers: int, gpus: Sequence[str], cores: int) -> list[dict[str, str]]:
    """What each worker's environment adds: its GPU, or its share of the cores."""
    if len(gpus) > 1:
        if workers > len(gpus):
            notice_once(f"sweep.workers={workers}: {len(gpus)} GPUs are shared by several workers each")
        return [{"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(workers)]
    if gpus:
        return [{} for _ in range(workers)]
    threads = str(max(1, cores // workers))
    return [{} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": threads} for _ in range(workers)]


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    report: Path


def payload(spec: WorkerSpec, report: Path) -> bytes:
    """What a child reads from its standard input."""
    import cloudpickle  # type: ignore[import-untyped]

    state: dict[str, Any] = {"spec": spec, "report": report, "singletons": Singleton.get_state()}
    return bytes(cloudpickle.dumps({"path": sys.path, "body": cloudpickle.dumps(state)}))


def run_pool(spec: WorkerSpec, workers: int) -> None:
    """Run `workers` processes until the study has no trial left.

    Raises:
        UserError: what stopped a worker.
    """
    environments = worker_environments(workers, visible_gpus(), os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(prefix="emotion_sweeps_") as folder, sigterm_as_exception():
        pool: list[_Worker] = []
        try:
            for index, environment in enumerate(environments):
                pool.append(_start(spec, environment, Path(folder) / f"{index}.json"))
            _watch(spec, pool, replacements=max(3, workers), folder=Path(folder))
        except BaseException:
            _stop(pool)
            raise


def _start(spec: WorkerSpec, environment: dict[str, str], report: Path) -> _Worker:
    body = payload(spec, report)
    process = subprocess.Popen(
        [sys.executable, "-m", "emotion_sweeps.sweeps.child"],
        stdin=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert process.stdin is not None
    try:
        process.stdin.write(len(body).to_bytes(8, "big") + body)
        process.stdin.flush()  # stays open: its end tells the child that we are gone
    except BrokenPipeError:
        pass  # seen by its exit code
    return _Worker(process, environment, report)


def _watch(spec: WorkerSpec, pool: list[_Worker], replacements: int, folder: Path) -> None:
    while pool:
        time.sleep(POLL_S)
        for worker in [w for w in pool if w.process.poll() is not None]:
            pool.remove(worker)
            code = worker.process.returncode
            if code == 0:
                continue
            if worker.report.is_file():
                raise UserError(json.loads(worker.report.read_text(encoding="utf-8"))["error"])
            if code > 0 and not _was_killed(code):
                raise UserError(f"a worker of the sweep ended with exit code {code}; its traceback is above")
            if replacements == 0:
                raise UserError(
                    "workers of the sweep are killed again and again (for memory?); take fewer sweep.workers"
                )
            replacements -= 1
            log.warning("a worker was killed (exit code %d); another one takes its place", code)
            report = folder / f"again-{replacements}.json"
            pool.append(_start(spec, worker.environment, report))


def _was_killed(code: int) -> bool:
    """Whether the exit code is a shell's or our own way to say that a signal ended it."""
    return code > 128


def _stop(pool: Sequence[_Worker]) -> None:
    for worker in pool:
        if worker.process.poll() is None:
            worker.process.terminate()
    deadline = time.monotonic() + GRACE_S
    for worker in pool:
        try:
            worker.process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
