"""One worker at a time: the mutual exclusion under which trials are claimed, and the clock that leases are read by.

Local storages (SQLite, journal): an advisory lock on a file beside the storage, which the kernel drops when its holder
dies. Database servers: a row locked by an open transaction, which the server rolls back when its connection breaks;
the clock is the server's, so machines need not agree on the time. Cost: under a millisecond, or three round trips.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from emotion_sweeps.notices import notice_once

POLL_S = 0.005
PATIENCE_S = 30.0
STALLED_HOLDER_S = 300  # a server rolls back a claim whose machine went silent for so long


class Mutex(Protocol):
    """Mutual exclusion between threads, processes and (with a database server) machines."""

    def held(self) -> Any:
        """A context manager; reentrant within a thread. Yields a function that raises if the lock was lost."""


class FileMutex:
    """An advisory lock on `path`, which is left in place (removing it would break the exclusion)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread_lock = threading.RLock()
        self._depth = 0

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Hold the lock for the time of the block."""
        with self._thread_lock:
            if self._depth:
                yield _nothing
                return
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
            self._depth += 1
            try:
                self._wait(descriptor)
                yield _nothing
            finally:
                self._depth -= 1
                os.close(descriptor)

    def _wait(self, descriptor: int) -> None:
        start = time.monotonic()
        while not _try_lock(descriptor):
            if time.monotonic() - start > PATIENCE_S:
                notice_once(f"another worker has held {self._path} for {PATIENCE_S:.0f} s; still waiting for it")
            time.sleep(POLL_S)


def _nothing() -> None:
    """A file lock cannot be lost while its descriptor is open."""


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class RowMutex:
    """A locked row of the table `emotion_sweeps_locks` in the study's own database."""

    def __init__(self, engine: Any, name: str) -> None:
        import sqlalchemy as sa

        self._engine, self._name = engine, name[:200]
        self._thread_lock = threading.RLock()
        self._depth = 0
        self._table = sa.Table(
            "emotion_sweeps_locks", sa.MetaData(), sa.Column("name", sa.String(200), primary_key=True)
        )
        self._make_row()

    def _make_row(self) -> None:
        import sqlalchemy as sa

        for _ in range(5):  # two workers may make the table or the row at once: the loser looks again
            try:
                self._table.metadata.create_all(self._engine)
                with self._engine.begin() as connection:
                    found = connection.execute(sa.select(self._table).where(self._table.c.name == self._name)).first()
                    if found is None:
                        connection.execute(self._table.insert().values(name=self._name))
                return
            except (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.OperationalError) as error:
                last = error
                time.sleep(0.05)
        raise last

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Hold the row for the time of the block."""
        import sqlalchemy as sa

        with self._thread_lock:
            if self._depth:
                yield _nothing
                return
            with self._engine.begin() as connection:
                if self._engine.dialect.name == "postgresql":
                    connection.execute(
                        sa.text(f"SET LOCAL idle_in_transaction_session_timeout = '{STALLED_HOLDER_S}s'")
                    )
                connection.execute(sa.select(self._table).where(self._table.c.name == self._name).with_for_update())
                self._depth += 1
                try:
                    yield lambda: connection.execute(sa.text("SELECT 1"))
                finally:
                    self._depth -= 1


def server_clock(engine: Any) -> Callable[[], float]:
    """Seconds since 1970 by the database server, where it can be asked; else by this machine."""
    import sqlalchemy as sa

    question = {
        "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
        "mysql": "SELECT UNIX_TIMESTAMP(SYSDATE(6))",
        "mariadb": "SELECT UNIX_TIMESTAMP(SYSDATE(6))",
    }.get(engine.dialect.name)
    if question is None:
        return time.time

    def now() -> float:
        with engine.connect() as connection:
            return float(connection.execute(sa.text(question)).scalar_one())

    return now
