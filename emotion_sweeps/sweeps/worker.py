"""The solo worker: one slot that claims a trial, runs it under a heartbeat, tells how it ended, and asks for the next.

Where nothing can be claimed but trials run elsewhere it waits: one of them may lose its worker, or promote a paused
one. Interrupted (Ctrl-C, SIGTERM) it gives its trial back at once, for the next start to go on with.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps.jobs import LeaseLost
from emotion_sweeps.sweeps.source import Claim, Outcome, SourceHandle, TrialSource

log = logging.getLogger(__name__)
BEATS_PER_LEASE = 4
MIN_POLL_S, MAX_POLL_S = 0.05, 2.0

Run = Callable[[Claim, TrialSource, Callable[[SourceHandle], None]], Outcome]


class Terminated(BaseException):
    """SIGTERM: a scheduler or the parent asks this worker to go."""


def work(source: TrialSource, run: Run, *, lease_s: float, on_end: Callable[[Claim, Outcome], None]) -> None:
    """Run trials until the study has none left, here or elsewhere."""
    poll_s, told = MIN_POLL_S, False
    while True:
        claim = source.claim()
        if claim is not None:
            poll_s, told = MIN_POLL_S, False
            run_one(source, claim, run, lease_s=lease_s, on_end=on_end)
        elif source.done():
            return
        else:
            if not told and poll_s == MAX_POLL_S:
                log.info("nothing left to start; waiting for the trials of other workers")
                told = True
            time.sleep(poll_s)
            poll_s = min(2 * poll_s, MAX_POLL_S, lease_s / BEATS_PER_LEASE)


def run_one(
    source: TrialSource, claim: Claim, run: Run, *, lease_s: float, on_end: Callable[[Claim, Outcome], None]
) -> None:
    """Run one claimed trial and tell how it ended."""
    try:
        with heartbeat(source, claim, lease_s) as handle_made:
            outcome = run(claim, source, handle_made)
        kept = source.finish(claim, outcome)
    except LeaseLost:
        kept = False
    except BaseException:
        try:
            source.release(claim)
        except UserError:
            log.debug("trial %s could not be given back; its lease will run out", claim.number)
        raise
    if kept:
        on_end(claim, outcome)
    else:
        log.warning(
            "trial %s was silent for too long and was given to another worker; this result is dropped",
            claim.number,
        )


@contextmanager
def heartbeat(source: TrialSource, claim: Claim, lease_s: float) -> Iterator[Callable[[SourceHandle], None]]:
    """Renew the lease in a thread; tell what is yielded of the running handle, which a lost lease marks."""
    handles: list[SourceHandle] = []
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(lease_s / BEATS_PER_LEASE):
            try:
                mine = source.renew(claim)
            except Exception as error:  # the storage may be back before the lease runs out
                log.warning("trial %s: its lease could not be renewed (%s)", claim.number, error)
                continue
            if not mine:
                for handle in handles:
                    handle.lost = True
                return

    thread = threading.Thread(target=beat, name=f"lease-of-trial-{claim.number}", daemon=True)
    thread.start()
    try:
        yield handles.append
    finally:
        stop.set()
        thread.join(timeout=10)


@contextmanager
def sigterm_as_exception() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated` in the main thread, so that trials are given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_it(signum: int, frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
