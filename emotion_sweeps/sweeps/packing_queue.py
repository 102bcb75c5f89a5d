"""Jobs on their way into a pack: a fixed list, or what several claiming threads ask for.

With a study each slot is a thread that claims, waits for its trial and tells how it ended, with the worker's own loop,
lease and retries; the pack trains in the main thread. A freed slot is filled at once, so the pack waits, for the moment
it takes, until every thread has either asked for a job or found none. A gate keeps threads from claiming more trials
than there are slots. Free of torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hydra.core.utils import JobReturn

from emotion_sweeps.handle import NullHandle, TrialHandle
from emotion_sweeps.sweeps.pruning import Decision
from emotion_sweeps.sweeps.source import Claim, Outcome, SourceHandle, TrialSource


@dataclass(eq=False)
class Request:
    """One job that is asked for, and where its result goes."""

    overrides: list[str]
    number: int
    subdir: str | None = None  # None: as the config says
    handle: TrialHandle = field(default_factory=NullHandle)
    result: JobReturn | None = None
    error: BaseException | None = None
    answered: threading.Event = field(default_factory=threading.Event)
    thread: int = 0


class JobQueue(Protocol):
    """Where a pack gets its jobs."""

    def next(self, *, block: bool) -> Request | None:
        """The next job; None when there is none just now, or, blocking, none any more."""

    def answer(self, request: Request, result: JobReturn) -> None:
        """Hand a result back."""

    def refuse(self, request: Request, error: Exception) -> None:
        """The job could not even be composed."""

    def open(self, slots: int) -> None:
        """So many jobs can run at once."""

    def left(self) -> int | None:
        """How many jobs are known to wait; None when unknown."""


class ListQueue:
    """A launcher's fixed list."""

    def __init__(self, jobs: Sequence[Sequence[str]], first_number: int) -> None:
        self.requests = [Request(list(job), first_number + index) for index, job in enumerate(jobs)]
        self._next = 0

    def next(self, *, block: bool) -> Request | None:
        """The next of the list."""
        if self._next == len(self.requests):
            return None
        self._next += 1
        return self.requests[self._next - 1]

    def answer(self, request: Request, result: JobReturn) -> None:
        """Keep the result."""
        request.result = result

    def refuse(self, request: Request, error: Exception) -> None:
        """A mistake in a launcher's list ends the launch, as in Hydra's own launchers."""
        raise error

    def open(self, slots: int) -> None:
        """The list is all there."""

    def left(self) -> int | None:
        """Jobs that were not handed out yet."""
        return len(self.requests) - self._next


class ThreadQueue:
    """What claiming threads ask for.

    A thread is asking (it claims, or tells how a trial ended), waiting for its job's result, or idle (behind the gate,
    or there was nothing to claim).
    """

    def __init__(self, threads: int) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Request] = []
        self._asking: set[int] = set()
        self._admitted: set[int] = set()
        self._gated: set[int] = set()
        self._unstarted = self._alive = self._most = threads
        self._places = 1
        self._stopped: BaseException | None = None
        self.taken: list[Request] = []  # by the pack, not answered yet

    # the threads' side

    def run(self, slot: Callable[[], None]) -> None:
        """The life of one thread."""
        me, error = threading.get_ident(), None
        with self._changed:
            self._unstarted -= 1
            self._asking.add(me)
        try:
            slot()
        except BaseException as raised:
            error = raised
        with self._changed:
            self._alive -= 1
            self._asking.discard(me)
            self._admitted.discard(me)
            self._stopped = self._stopped or error
            self._changed.notify_all()

    def enter(self) -> None:
        """Go to claim, as soon as there is a slot for it."""
        me = threading.get_ident()
        with self._changed:
            while self._stopped is None and me not in self._admitted and len(self._admitted) >= self._places:
                self._asking.discard(me)
                self._gated.add(me)
                self._changed.notify_all()
                self._changed.wait()
            self._gated.discard(me)
            if self._stopped is not None:
                raise self._stopped
            self._admitted.add(me)
            self._asking.add(me)

    def found_nothing(self) -> None:
        """There was nothing to claim: the slot is somebody else's."""
        with self._changed:
            self._asking.discard(threading.get_ident())
            self._admitted.discard(threading.get_ident())
            self._changed.notify_all()

    def submit(self, handle: SourceHandle, overrides: list[str], subdir: str) -> JobReturn:
        """Ask for a job and wait for its result (the `execute` of a `JobRunner`)."""
        assert handle.number is not None
        request = Request(list(overrides), handle.number, subdir, handle)
        request.thread = me = threading.get_ident()
        with self._changed:
            if self._stopped is not None:
                raise self._stopped
            self._waiting.append(request)
            self._asking.discard(me)
            self._changed.notify_all()
        request.answered.wait()
        if request.error is not None:
            raise request.error
        assert request.result is not None
        return request.result

    # the pack's side

    def next(self, *, block: bool) -> Request | None:
        """The next job that a thread asked for; waits for the threads that are asking just now."""
        with self._changed:
            while True:
                if self._stopped is not None:
                    raise self._stopped
                if self._waiting:
                    self.taken.append(self._waiting.pop(0))
                    return self.taken[-1]
                if not self._alive or not (block or self._asking or self._unstarted):
                    return None
                self._changed.wait(timeout=0.5)

    def answer(self, request: Request, result: JobReturn) -> None:
        """Hand a result to its thread, which will ask again."""
        request.result = result
        self._answered(request)

    def refuse(self, request: Request, error: Exception) -> None:
        """Let the thread meet the error."""
        request.error = error
        self._answered(request)

    def _answered(self, request: Request) -> None:
        with self._changed:
            self.taken.remove(request)
            self._asking.add(request.thread)
        request.answered.set()

    def open(self, slots: int) -> None:
        """Let so many threads hold a claim at once; never fewer than before."""
        with self._changed:
            places = max(self._places, min(slots, self._most))
            gated = sorted(self._gated)[: places - self._places]
            self._asking |= set(gated)  # they are let in now: whoever looks for a job next waits for them
            self._places = places
            self._changed.notify_all()

    def left(self) -> int | None:
        """Nobody knows what a study still holds."""
        return None

    def stop(self, error: BaseException) -> None:
        """End every thread: those that wait get `error`, those that ask meet it."""
        with self._changed:
            self._stopped = self._stopped or error
            unanswered = [*self._waiting, *self.taken]
            self._waiting, self.taken = [], []
            self._changed.notify_all()
        for request in unanswered:
            request.error = self._stopped
            request.answered.set()


class WatchedSource:
    """A source whose claims pass the queue's gate; all else is the source's own."""

    def __init__(self, source: TrialSource, queue: ThreadQueue) -> None:
        self._source, self._queue = source, queue
        self.name = source.name

    def claim(self) -> Claim | None:
        """The next trial, once there is a slot for it."""
        self._queue.enter()
        claim = self._source.claim()
        if claim is None:
            self._queue.found_nothing()
        return claim

    def done(self) -> bool:
        """Whether no trial will come any more."""
        return self._source.done()

    def report(self, claim: Claim, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Keep one evaluation."""
        self._source.report(claim, step, epoch, metrics)

    def decide(self, claim: Claim) -> Decision:
        """Whether the trial goes on."""
        return self._source.decide(claim)

    def replicate(self, claim: Claim, index: int, values: Sequence[float]) -> Decision:
        """Keep the result of one finished replicate."""
        return self._source.replicate(claim, index, values)

    def renew(self, claim: Claim) -> bool:
        """Renew the lease."""
        return self._source.renew(claim)

    def finish(self, claim: Claim, outcome: Outcome) -> bool:
        """Tell how it ended."""
        return self._source.finish(claim, outcome)

    def release(self, claim: Claim) -> None:
        """Give an unfinished trial back."""
        self._source.release(claim)
