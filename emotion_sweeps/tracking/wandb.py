"""Weights & Biases as a listener: one run a trial, grouped by the sweep, offline where there is no account.

The id is the trial's own (`run_id_for`), and every history row carries its step, which never falls: a killed and
resumed trial makes a second offline folder of the same id, and `wandb sync` puts both into one run. A server that
does not answer costs at most `PROBE_TIMEOUT_S` and `INIT_TIMEOUT_S` at the start and `FINISH_TIMEOUT_S` at the end;
what it did not take stays on disk and is synced later. Written for wandb 0.31; nothing is imported before a run starts.
"""

from __future__ import annotations

import http.client
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Literal, cast

from emotion_sweeps.notices import notice_once
from emotion_sweeps.tracking.records import Record, jsonl_safe, scalars
from emotion_sweeps.tracking.tracker import FAILED, RunInfo

Mode = Literal["online", "offline", "disabled"]
MODES = ("auto", "online", "offline", "disabled")
PROBE_TIMEOUT_S = 3.0
INIT_TIMEOUT_S = 5.0
FINISH_TIMEOUT_S = 60.0
RETRY_AFTER_S = 600.0  # a server that could not be used is left alone for so long, or every trial would wait for it
_unusable_since: dict[str, float] = {}


class WandbTracker:
    """Writes every measurement of a run to a W&B run of its own."""

    def __init__(self, *, project: str, entity: str | None = None, mode: str = "auto") -> None:
        self._project = project
        self._entity = entity
        self._mode = mode
        self._run: Any = None
        self._step = 0

    def start(self, run: RunInfo) -> None:
        """Open the run; online falls back to offline, with a notice, where the server does not answer."""
        run.run_dir.mkdir(parents=True, exist_ok=True)
        session = quiet_session()
        mode = resolve_mode(self._mode, session)
        if mode == "online" and not self._open_online(run, session.base_url):
            mode = "offline"
        if self._run is None:
            self._run = self._open(run, mode)
        if mode == "offline":
            notice_once(
                "tracking.wandb: runs are written offline, below wandb/ in each run folder; "
                f"upload them with: wandb sync {run.run_dir.parent}/*/wandb/offline-run-*"
            )

    def _open_online(self, run: RunInfo, server: str) -> bool:
        if time.monotonic() - _unusable_since.get(server, -math.inf) < RETRY_AFTER_S:
            return False
        reason = unreachable(server)
        if reason is None:
            try:
                self._run = self._open(run, "online")
                return True
            except Exception as error:
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                _release_ids()
        _unusable_since[server] = time.monotonic()
        notice_once(f"tracking.wandb: {server} cannot be used, going on offline ({reason})")
        return False

    def _open(self, run: RunInfo, mode: Mode) -> Any:
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",  # several runs share one process: none of them may own its output
            init_timeout=INIT_TIMEOUT_S,
            finish_timeout=FINISH_TIMEOUT_S,
            finish_timeout_raises=False,
            disable_code=True,
        )
        return wandb.init(
            project=self._project,
            entity=self._entity,
            dir=str(run.run_dir),
            id=run.run_id,
            name=run.name,
            group=run.group,
            job_type=run.job_type,
            tags=list(run.tags),
            config=jsonl_safe(run.config),
            mode=mode,
            resume="allow" if mode == "online" else None,  # offline files are joined by their id when synced
            reinit="create_new",
            settings=settings,
        )

    def log(self, record: Record) -> None:
        """Add the record's measurements to the history row of its step."""
        measured = scalars(record)
        if self._run is None or not measured:
            return
        step = record.get("step")
        self._step = max(self._step, int(step)) if step is not None else self._step
        self._run.log(measured, step=self._step)

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Write the summary and close the run, as failed where the trial failed."""
        if self._run is None:
            return
        run, self._run = self._run, None
        try:
            run.summary.update({**jsonl_safe(summary), "status": status})
        finally:
            run.finish(exit_code=1 if status == FAILED else 0)


def unreachable(server: str) -> str | None:
    """Why `server` gives no HTTP answer, or None; asked first, because a failed `wandb.init` keeps its run id."""
    try:
        with urllib.request.urlopen(server, timeout=PROBE_TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}" if error.code >= 500 else None
    except (OSError, ValueError, http.client.HTTPException) as error:
        return " ".join(str(error).split())[:200] or type(error).__name__


def _release_ids() -> None:
    # wandb 0.31's service holds the id of a run that it could not open, and refuses it offline ("is in use"). Only
    # a new service forgets it, and a new service would end the other runs of this process.
    import wandb

    if wandb.setup().most_recent_active_run is None:
        wandb.teardown()


def quiet_session() -> Any:
    """W&B's settings for this process, read quietly (it prints where it found credentials otherwise)."""
    # wandb 0.31 reports errors and usage to its server even from offline runs; WANDB_ERROR_REPORTING=true allows it.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb.setup(wandb.Settings(silent=True)).settings


def resolve_mode(mode: str, session: Any) -> Mode:
    """`auto` is what W&B itself was told (`WANDB_MODE`, `wandb offline`), else online only with credentials."""
    if mode != "auto":
        return cast(Mode, mode)
    told = session.mode
    if told in ("offline", "dryrun"):
        return "offline"
    if told == "disabled":
        return "disabled"
    return "online" if has_credentials(session) else "offline"


def has_credentials(session: Any) -> bool:
    """Whether W&B would find an API key without asking: environment, its settings, or netrc for its server."""
    if session.api_key or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    from wandb.sdk.lib import wbauth

    try:
        return wbauth.read_netrc_auth(host=session.base_url) is not None
    except Exception as error:  # a key in netrc that is none: W&B would refuse it
        notice_once(f"tracking.wandb: the API key in netrc cannot be used ({error})")
        return False
