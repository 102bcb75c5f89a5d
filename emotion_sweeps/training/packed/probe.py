"""How many trials at once: a memory estimate, and on GPUs a short probe of how step time grows with the slots.

A step of n trials takes about max(launch time, n * work): as long as launches dominate, more trials are free. On a GPU
a forward and backward pass over the longest rows is timed with 1, 2, 4, ... slots, doubling while that saves at least
5 % a trial and twice the memory of the last pass still fits into what is free. On a CPU launches are nothing: with
MiniLM 2, 4 and 8 slots take 118, 105 and 104 ms a trial, so one pass of one trial says what memory a slot takes, and
that is all. Costs a few passes.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import torch

from emotion_sweeps.lora.packed_dropout import Stream
from emotion_sweeps.lora.packed_model import PackedModel, quiet_backward
from emotion_sweeps.training.memory import resident_gib
from emotion_sweeps.training.packed.task import is_out_of_memory

MOST_SLOTS = 32
CPU_SLOTS = 4  # on CPUs a pack's gain is in the shared work around the passes, not in their size
_WORTH_IT = 0.95
_SAFE = 0.8  # of the free memory
_GIB = float(2**30)


def free_gib(device: torch.device) -> float:
    """Memory that is left on the device, in GiB."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (free + cached) / _GIB
    try:
        with open("/proc/meminfo", encoding="ascii") as info:
            sizes = {line.split(":")[0]: int(line.split()[1]) for line in info}
        return sizes["MemAvailable"] * 1024 / _GIB
    except (OSError, KeyError, ValueError, IndexError):
        return float("inf")  # not Linux: running out of memory halves the slots


def choose_slots(pack: PackedModel, task: Any, *, precision: str, rows: int, limit: int | None) -> tuple[int, str]:
    """The number of slots, and the reason in words. The pack is left with one empty slot.

    Args:
        rows: of one trial in a pass.
        limit: trials that are known to come.
    """
    cuda = pack.device.type == "cuda"
    most = min(MOST_SLOTS if cuda else CPU_SLOTS, limit or MOST_SLOTS)
    if most <= 1:
        return 1, "one trial"
    try:
        if cuda:
            return _by_time(pack, task, precision, rows, most)
        _, used_gib = _pass(pack, task, precision, rows, 1)
        fitting = int(_SAFE * free_gib(pack.device) / max(used_gib, 0.01))
        return max(1, min(most, fitting)), "as many as fit" if fitting < most else "more would not be faster on a CPU"
    finally:
        pack.resize([None], pack.max_rank)


def _by_time(pack: PackedModel, task: Any, precision: str, rows: int, most: int) -> tuple[int, str]:
    """Doubles the slots while it pays and fits."""
    best, reason, each_s = 1, "more do not fit into memory", float("inf")
    for slots in [n for n in (1, 2, 4, 8, 16, 32) if n < most] + [most]:
        try:
            _pass(pack, task, precision, rows, slots)  # the first of a shape sets things up
            spent_s, used_gib = _pass(pack, task, precision, rows, slots)
        except Exception as error:
            if is_out_of_memory(error):
                return best, reason
            raise
        if spent_s / slots > _WORTH_IT * each_s:
            return best, f"{slots} at once would save less than 5 % a trial"
        best, each_s = slots, spent_s / slots
        reason = f"{1000 * each_s:.0f} ms a trial and pass"
        if 2 * used_gib > _SAFE * free_gib(pack.device):
            return best, f"{reason}, more would not fit into memory"
    return best, reason


def _pass(pack: PackedModel, task: Any, precision: str, rows: int, slots: int) -> tuple[float, float]:
    """Seconds of a pass over the longest rows, and the memory that it took in GiB."""
    pack.resize([None] * slots, pack.max_rank)
    order = sorted(range(len(task.lengths)), key=lambda row: task.lengths[row])[-rows:]
    part = [(row, 1 / len(order)) for row in order]
    pack.module.train()
    cuda = pack.device.type == "cuda"
    before, begin = _used(pack.device), time.perf_counter()
    if cuda:
        torch.cuda.reset_peak_memory_stats(pack.device)
    batch = task.collate([part] * slots, pack.device)
    streams = [Stream(0, n, width) for n, width in zip(batch.num_rows, batch.widths, strict=True)]
    with pack.using(None, streams) as model, _autocast(pack.device, precision):
        losses = task.losses(model, batch, [_Plain()] * slots)
    during = _used(pack.device)  # what the pass keeps for its way back
    with quiet_backward():
        torch.autograd.backward(losses.sum())
    if cuda:
        torch.cuda.synchronize(pack.device)
    peak = torch.cuda.max_memory_allocated(pack.device) / _GIB if cuda else max(during, _used(pack.device))
    return time.perf_counter() - begin, max(0.0, peak - before)


class _Plain:
    loss_weight = None
    label_smoothing = focal_gamma = 0.0


def _used(device: torch.device) -> float:
    return torch.cuda.memory_allocated(device) / _GIB if device.type == "cuda" else resident_gib()


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
