"""Optuna's journal file, made safe against a worker that is killed while it writes.

The stock file cannot be read any more once something is appended behind a torn last line, and a lock file left by a
killed process stalls the next start by 30 s. Here the lock is one that the kernel drops with its holder, each append
first cuts off a torn tail (an operation that never finished), and both remains are cleared, with a notice, on opening.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from emotion_sweeps.errors import UserError
from emotion_sweeps.notices import notice_once
from emotion_sweeps.sweeps.mutex import FileMutex

STALE_LOCK_S = 2.0  # a lock is held for one append, a few milliseconds
_BLOCK = 1 << 16


class KernelLock(BaseJournalFileLock):
    """Optuna's lock interface over a `FileMutex`."""

    def __init__(self, path: Path) -> None:
        self._mutex = FileMutex(path)
        self._held: Any = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        held = self._mutex.held()
        held.__enter__()
        self._held = held
        return True

    def release(self) -> None:
        """Give the lock back."""
        held, self._held = self._held, None
        held.__exit__(None, None, None)


class SafeJournal(JournalFileBackend):
    """A journal file that no death of a writer can make unreadable."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=KernelLock(path.with_name(path.name + ".append-lock")))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines behind the last whole line."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._lock.acquire()
        try:
            with open(self._file_path, "r+b") as file:
                file.seek(cut_torn_tail(file))
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()


def cut_torn_tail(file: Any) -> int:
    """Truncate `file` behind its last newline; returns its size then."""
    end = size = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        file.truncate(end)
    return int(end)


def open_journal(path: Path) -> SafeJournal:
    """Open (or make) a journal file, repairing what a killed writer left.

    Raises:
        UserError: a line in the middle cannot be read and hides no whole operation.
    """
    _clear_stale_lock(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    backend = SafeJournal(path)
    backend._lock.acquire()
    try:
        _repair(path)
    finally:
        backend._lock.release()
    return backend


def _clear_stale_lock(path: Path) -> None:
    lock = path.with_name(path.name + ".lock")  # of Optuna's own lock classes: a symbolic link or a file
    deadline = time.monotonic() + 10 * STALE_LOCK_S
    while time.monotonic() < deadline:
        try:
            age_s = time.time() - lock.lstat().st_mtime
        except FileNotFoundError:
            return
        if age_s > STALE_LOCK_S:
            lock.unlink(missing_ok=True)
            notice_once(f"{lock}: removed a lock that a killed process had left {age_s:.0f} s ago")
            return
        time.sleep(0.1)


def _repair(path: Path) -> None:
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        whole = cut_torn_tail(file)
    if whole != size:
        notice_once(f"{path}: cut off a last line that was never finished ({size - whole} bytes); nothing else is lost")
    lines = path.read_bytes().splitlines(keepends=True)
    mended = [_mend(line, path, number) for number, line in enumerate(lines, start=1)]
    if mended != lines:
        copy = path.with_name(path.name + ".broken")
        shutil.copy2(path, copy)
        fresh = path.with_name(path.name + ".mended")
        fresh.write_bytes(b"".join(mended))
        os.replace(fresh, path)
        notice_once(f"{path}: took out torn operations that others had been appended to; the file as it was: {copy}")


def _mend(line: bytes, path: Path, number: int) -> bytes:
    """The line, or the whole operation that follows a torn one on the same line."""
    start = 0
    while start >= 0:
        try:
            json.loads(line[start:])
            return line[start:]
        except ValueError:
            start = line.find(b'{"op_code"', start + 1)
    raise UserError(
        f"{path}: line {number} cannot be read, so this is no journal file or it is damaged; "
        "restore it from a copy, or give another sweep.storage"
    )
