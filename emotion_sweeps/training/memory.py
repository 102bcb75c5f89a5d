"""Memory before, at the peak of and after a phase: resident set of this process, and the GPUs' allocator.

The kernel keeps the resident set's high-water mark (VmHWM) and resets it when 5 is written to
/proc/self/clear_refs, so the peak is exact and costs two small files a phase. Where that is not possible
(macOS, a read-only /proc) a thread samples the resident set every 50 ms. Phases may nest: an inner peak
counts for the outer one. GiB = 2**30 bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_GIB = float(2**30)
_SAMPLING_S = 0.05
_open_phases: list[dict[str, float]] = []  # peaks of the phases that are running, outermost first


def _status_gib(field: str) -> float | None:
    """A memory field of /proc/self/status in GiB, None where there is no such file."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024 / _GIB
    except OSError:
        pass
    return None


def resident_gib() -> float:
    """Memory that this process holds now."""
    resident = _status_gib("VmRSS")
    if resident is None:
        import psutil  # type: ignore[import-untyped]

        resident = psutil.Process().memory_info().rss / _GIB
    return resident


def _reset_high_water() -> bool:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")
    except OSError:
        return False
    return _status_gib("VmHWM") is not None


def _raise_open_peaks(peak_gib: float) -> None:
    for phase in _open_phases:
        phase["peak"] = max(phase["peak"], peak_gib)


def _sample(stop: threading.Event) -> None:
    while not stop.wait(_SAMPLING_S):
        _raise_open_peaks(resident_gib())


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


@contextmanager
def memory_phase(phase: str, on_record: Callable[[dict[str, Any]], None]) -> Iterator[dict[str, Any]]:
    """Measure the block and hand its memory record to `on_record`, also when the block raises.

    Args:
        phase: load, train, evaluate, predict or save.
    Yields:
        the record, whole once the block is left.
    """
    high_water, exact, stop = _status_gib("VmHWM") or 0.0, _reset_high_water(), threading.Event()
    if exact:
        _raise_open_peaks(high_water)
    else:
        threading.Thread(target=_sample, args=(stop,), daemon=True).start()
    for device in _devices():
        torch.cuda.reset_peak_memory_stats(device)
    before = resident_gib()
    peaks = {"peak": before}
    _open_phases.append(peaks)
    record: dict[str, Any] = {"kind": "memory", "phase": phase, "before_gib": before}
    try:
        yield record
    finally:
        stop.set()
        after = resident_gib()
        _raise_open_peaks(max(after, (_status_gib("VmHWM") or 0.0) if exact else 0.0))
        _open_phases[:] = [phase for phase in _open_phases if phase is not peaks]
        record |= {"peak_gib": peaks["peak"], "after_gib": after}
        if devices := _devices():
            record["device_peak_gib"] = max(torch.cuda.max_memory_allocated(d) for d in devices) / _GIB
        on_record(record)
