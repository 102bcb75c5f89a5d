"""How many slots: bounded by what is known to come, by memory, and on GPUs by what still pays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pack_kit import head_base, head_task, roberta, rows

from emotion_sweeps.lora.packed_model import PackedModel
from emotion_sweeps.lora.targets import resolve_targets
from emotion_sweeps.training.packed import probe


@pytest.fixture
def pack() -> PackedModel:
    base = head_base(roberta())
    return PackedModel(base, resolve_targets(base, "all-linear"), num_slots=1, max_rank=4)


def choose(pack: PackedModel, limit: int | None = None) -> tuple[int, str]:
    return probe.choose_slots(pack, head_task(rows(16), rows(4)), precision="fp32", rows=8, limit=limit)


def test_on_a_cpu_a_few_slots_and_no_more_than_trials(pack: PackedModel) -> None:
    assert choose(pack)[0] == probe.CPU_SLOTS
    assert choose(pack, limit=3)[0] == 3
    assert choose(pack, limit=1) == (1, "one trial")


def test_memory_bounds_the_slots_and_the_pack_is_left_empty(pack: PackedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_pass", lambda *args: (0.1, 1.0))
    monkeypatch.setattr(probe, "free_gib", lambda device: 2.6)
    assert choose(pack) == (2, "as many as fit")
    monkeypatch.setattr(probe, "free_gib", lambda device: 0.1)
    assert choose(pack)[0] == 1
    assert pack.num_slots == 1 and not any(buffer.any() for buffer in pack.store.buffers.values())


@pytest.mark.parametrize(
    "launch_s, work_s, gib, wanted",
    [(1.0, 0.001, 0.0, 32), (1.0, 1.0, 0.0, 16), (0.0, 1.0, 0.0, 1), (1.0, 0.001, 5.0, 4)],
)
def test_slots_double_while_it_pays_and_fits(
    pack: PackedModel, monkeypatch: pytest.MonkeyPatch, launch_s: float, work_s: float, gib: float, wanted: int
) -> None:
    def fake(pack: Any, task: Any, precision: str, rows: int, slots: int) -> tuple[float, float]:
        return launch_s + slots * work_s, slots * gib

    monkeypatch.setattr(probe, "_pass", fake)
    monkeypatch.setattr(probe, "free_gib", lambda device: 40.0)
    assert probe._by_time(pack, None, "bf16", 8, 32)[0] == wanted


def test_free_memory_is_a_number() -> None:
    assert probe.free_gib(torch.device("cpu")) > 0


def test_running_out_of_memory_ends_the_probe(pack: PackedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(pack: Any, task: Any, precision: str, rows: int, slots: int) -> tuple[float, float]:
        if slots > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0, 0.0

    monkeypatch.setattr(probe, "_pass", fake)
    assert probe._by_time(pack, None, "bf16", 8, 32) == (4, "250 ms a trial and pass")
