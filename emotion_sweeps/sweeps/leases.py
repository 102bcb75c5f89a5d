"""Who runs a trial: the claim and its heartbeats, kept as system attributes of the trial itself.

    emotion_sweeps:claim   {"owner", "attempt", "at", "state": running | paused | released, "process", "run", "deaths"};
                           written only under the study's mutex
    emotion_sweeps:beat:N  seconds since 1970 by the study's clock; written by the owner of attempt N alone

Because each attempt has a beat of its own, a worker that wakes up after its trial was given away cannot renew what is
not its own any more. A worker killed on this machine is noticed at once by its process, any other by its silence.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any

CLAIM_KEY = "emotion_sweeps:claim"
BEAT_KEY = "emotion_sweeps:beat"


def beat_key(attempt: int) -> str:
    """The attribute that holds the heartbeats of one attempt."""
    return f"{BEAT_KEY}:{attempt}"


@lru_cache(maxsize=1)
def _process_tag(pid: int) -> str:
    return f"{socket.gethostname()}-{pid}-{uuid.uuid4().hex[:8]}"


def owner_id() -> str:
    """This worker's name: host, process and thread."""
    return f"{_process_tag(os.getpid())}-{threading.get_ident()}"


def new_claim(now: float, attempt: int, run_id: str, deaths: int = 0) -> dict[str, Any]:
    """The claim attribute of an attempt that starts now, in this process.

    Args:
        run_id: of the command that started this worker.
        deaths: workers of this very run that died with the trial.
    """
    return {
        "owner": owner_id(), "attempt": attempt, "at": now, "state": "running", "process": this_process(),
        "run": run_id, "deaths": deaths,
    }  # fmt: skip


def deaths_in_run(claim: dict[str, Any] | None, run_id: str) -> int:
    """How many workers of this run a trial has cost, when its claim was left as `claim`."""
    if claim is None or claim.get("run") != run_id or claim["state"] != "running":
        return 0
    return int(claim.get("deaths", 0)) + 1


def this_process() -> dict[str, Any]:
    """What tells on this machine whether the process still lives: host, boot and pid namespace, pid, start time."""
    return {"place": _place(), "pid": os.getpid(), "start": _start_time(os.getpid())}


def is_orphan(system_attrs: dict[str, Any], now: float, lease_s: float) -> bool:
    """Whether a RUNNING trial with these attributes has lost its worker (paused trials have none to lose)."""
    claim = system_attrs.get(CLAIM_KEY)
    if claim is None or claim["state"] == "released":
        return True
    if claim["state"] == "paused":
        return False
    beat = max(float(claim["at"]), float(system_attrs.get(beat_key(claim["attempt"]), 0.0)))
    return now - beat > lease_s or is_dead(claim.get("process"))


def is_dead(process: dict[str, Any] | None) -> bool:
    """Whether the process ran on this machine and is gone; False where that cannot be known."""
    if not process or process.get("place") != _place() or _place() is None:
        return False
    return _start_time(int(process["pid"])) != process.get("start")


@lru_cache(maxsize=1)
def _place() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}|{boot}|{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: only the lease tells
        return None


def _start_time(pid: int) -> str | None:
    """When the process started, None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
