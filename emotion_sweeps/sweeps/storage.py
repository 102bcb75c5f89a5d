"""Where a study is kept: SQLite in the sweep's folder, Optuna's journal file, or any database that Optuna knows.

SQLite runs with its rollback journal and full synchronisation, which survive SIGKILL at any byte. Every failure of a
storage that a user can mend (not reachable, damaged, disk full) becomes one line; nothing is made before the storage
has answered.
"""

from __future__ import annotations

import errno
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps.mutex import FileMutex, Mutex, RowMutex, server_clock

DEFAULT_FILE = "study.db"
BUSY_TIMEOUT_S = 60
CONNECT_TIMEOUT_S = 10
TABLE_TRIES = 8
_SQLITE_MAGIC = b"SQLite format 3\0"
_DRIVERS = {"postgresql": "psycopg", "postgres": "psycopg", "mysql": "pymysql"}
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)


class StorageFailure(UserError):
    """The study's storage cannot be used: no trial's fault, so it stops the worker and marks no trial."""


@dataclass(frozen=True)
class OpenStorage:
    """An open storage, its exclusion and its clock."""

    storage: BaseStorage
    url: str  # opens it again; may hold a password
    shown: str  # for people and files: without the password
    path: Path | None  # of a local file
    mutex: Mutex
    now: Callable[[], float]


def locate(storage: str | None, sweep_dir: Path) -> tuple[str, Path | None]:
    """The canonical URL of `sweep.storage` and its file, if it is one; `journal:///PATH` for journal files."""
    if storage is None:
        return _file_url("sqlite", sweep_dir / DEFAULT_FILE)
    text = str(storage).strip()
    if "://" not in text:
        path = Path(text).expanduser()
        kind = "sqlite" if path.suffix in (".db", ".sqlite", ".sqlite3") else "journal"
        if path.suffix not in (".db", ".sqlite", ".sqlite3", ".log", ".journal", ".jsonl"):
            raise UserError(
                f"sweep.storage={text} is neither a storage URL nor a file ending in .db or .log; "
                "give sqlite:///study.db, study.log or postgresql://user@host/database"
            )
        return _file_url(kind, path)
    scheme, _, rest = text.partition(":///")
    if scheme in ("sqlite", "journal") and rest:
        if rest == ":memory:":
            raise UserError("sweep.storage=sqlite:///:memory: keeps nothing; leave it out, or give a file")
        return _file_url(scheme, Path(rest).expanduser())
    return _with_driver(text), None


def _file_url(kind: str, path: Path) -> tuple[str, Path]:
    absolute = path.absolute()
    return f"{kind}:///{absolute}", absolute


def _with_driver(url: str) -> str:
    """PostgreSQL and MySQL through the drivers that the extras install, whatever SQLAlchemy's own default is."""
    from importlib.util import find_spec

    scheme, separator, rest = url.partition("://")
    driver = _DRIVERS.get(scheme)
    name = "postgresql" if scheme == "postgres" else scheme
    return f"{name}+{driver}{separator}{rest}" if driver and find_spec(driver) else f"{name}{separator}{rest}"


def masked(url: str) -> str:
    """The URL without its password."""
    from sqlalchemy.engine import make_url

    return url if url.startswith("journal:") else make_url(url).render_as_string(hide_password=True)


def open_storage(storage: str | None, sweep_dir: Path, study_name: str) -> OpenStorage:
    """Open the storage of a study.

    Raises:
        UserError: it cannot be reached, its driver is missing, or the file is damaged.
    """
    url, path = locate(storage, sweep_dir)
    try:
        shown = masked(url)
    except Exception:
        raise UserError(
            "sweep.storage is not a storage URL; give sqlite:///study.db or postgresql://user@host/database"
        ) from None
    with storage_errors(shown):
        if path is not None:
            return _open_file(url, shown, path)
        return _open_server(url, shown, study_name)


def _open_file(url: str, shown: str, path: Path) -> OpenStorage:
    made_before = path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        mutex = FileMutex(path.with_name(path.name + ".claim-lock"))
        with mutex.held():
            opened = _journal(path) if url.startswith("journal:") else _sqlite(url, path)
    except BaseException:
        path.with_name(path.name + ".claim-lock").unlink(missing_ok=True)
        if not made_before and not any(path.parent.iterdir()):
            path.parent.rmdir()
        raise
    return OpenStorage(opened, url, shown, path, mutex, time.time)


def _journal(path: Path) -> BaseStorage:
    from emotion_sweeps.sweeps.journal import open_journal

    try:
        return JournalStorage(open_journal(path))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a journal of Optuna ({error!r}); give another sweep.storage") from None


def _sqlite(url: str, path: Path) -> BaseStorage:
    if path.exists() and path.stat().st_size:
        with open(path, "rb") as file:
            if file.read(16) != _SQLITE_MAGIC:
                raise UserError(
                    f"{path}: not a SQLite file or damaged at its start; restore it from a copy, or give "
                    "another sweep.storage"
                )
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
        try:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
        if verdict != "ok":
            raise UserError(
                f"{path}: the study file is damaged ({verdict.splitlines()[0]}); restore it from a copy, or "
                "give another sweep.storage"
            )
    backend = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": BUSY_TIMEOUT_S}})
    return _CachedStorage(backend)


def _open_server(url: str, shown: str, study_name: str) -> OpenStorage:
    driver = url.partition("://")[0].partition("+")[2]
    connect_args: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
    if driver.startswith("psycopg"):
        connect_args |= {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
    try:
        backend = _make_tables(url, {"connect_args": connect_args, "pool_pre_ping": True})
    except ImportError as error:
        raise UserError(
            f"sweep.storage={shown} needs a database driver that is not installed ({error.__cause__}); "
            "for PostgreSQL: pip install 'emotion-sweeps[postgres]'"
        ) from None
    mutex = RowMutex(backend.engine, study_name)
    return OpenStorage(_CachedStorage(backend), url, shown, None, mutex, server_clock(backend.engine))


def _make_tables(url: str, engine_kwargs: dict[str, Any]) -> RDBStorage:
    """Optuna's storage; where several workers make its tables at once, all but one have to look again."""
    import sqlalchemy as sa

    for attempt in range(1, TABLE_TRIES + 1):
        try:
            return RDBStorage(url, engine_kwargs=engine_kwargs)
        except (sa.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
            if attempt == TABLE_TRIES or not any(
                word in str(error) for word in ("already exists", "duplicate", "Duplicate")
            ):
                raise
            time.sleep(random.random())
    raise AssertionError("unreachable")


def load_study(opened: OpenStorage, name: str) -> optuna.Study | None:
    """The study called `name`, None where there is none."""
    with storage_errors(opened.shown):
        try:
            return optuna.load_study(study_name=name, storage=opened.storage, sampler=optuna.samplers.RandomSampler(0))
        except KeyError:
            return None


@contextmanager
def storage_errors(shown: str) -> Iterator[None]:
    """Turn the storage's failures inside the block into one line each."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        mistake = as_storage_error(error, shown)
        if mistake is None:
            raise
        raise mistake from error


def as_storage_error(error: BaseException, shown: str) -> StorageFailure | None:
    """The one-line form of a storage's failure; None when `error` is none."""
    chain = list(_chain(error))
    if is_disk_full(error):
        return StorageFailure(
            f"{shown}: the disk is full; what was finished is safe: free some space and run the same command again"
        )
    kinds = tuple(f"{type(e).__module__.partition('.')[0]}.{type(e).__name__}" for e in chain)
    text = " ".join(str(chain[-1]).split())[:300]
    of_storage = any(
        k.startswith(("sqlite3.", "sqlalchemy.", "psycopg")) or k.endswith("StorageInternalError") for k in kinds
    )
    if isinstance(error, OSError) and not of_storage:
        return StorageFailure(f"sweep.storage={shown}: {error.strerror or error}")
    if not of_storage:
        return None
    if any(word in text for word in ("malformed", "not a database", "disk image", "is corrupt")):
        return StorageFailure(
            f"{shown}: the study file is damaged ({text}); restore it from a copy, or give another sweep.storage"
        )
    return StorageFailure(
        f"sweep.storage={shown} cannot be reached or written ({text}); check it and run the same command again"
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether a full disk (or quota) is at the bottom of `error`."""
    return any(
        (isinstance(e, OSError) and e.errno in _DISK_ERRORS) or "database or disk is full" in str(e)
        for e in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from, innermost last."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        yield current
        current = current.__cause__ or current.__context__
