from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from emotion_sweeps.training import memory
from emotion_sweeps.training.memory import memory_phase, resident_gib

MIB_64 = 64 * 2**20


@pytest.fixture(params=["exact", "sampled"])
def records(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """With the kernel's high-water mark, and without it."""
    if request.param == "sampled":
        monkeypatch.setattr(memory, "_reset_high_water", lambda: False)
        monkeypatch.setattr(memory, "_SAMPLING_S", 0.001)
    elif not memory._reset_high_water():
        pytest.skip("this kernel does not reset VmHWM")
    return []


def hold_and_drop() -> None:
    import time

    block = np.ones(MIB_64, np.uint8)
    time.sleep(0.05)
    del block


def test_the_peak_of_a_phase_is_its_own(records: list[dict[str, Any]]) -> None:
    with memory_phase("train", records.append):
        hold_and_drop()
    with memory_phase("predict", records.append):
        pass
    first, second = records
    assert first["phase"] == "train" and second["phase"] == "predict"
    assert first["peak_gib"] - first["before_gib"] > 0.75 * MIB_64 / 2**30
    assert second["peak_gib"] - second["before_gib"] < 0.25 * MIB_64 / 2**30
    assert first["after_gib"] == pytest.approx(resident_gib(), abs=0.05)
    assert "device_peak_gib" not in first


def test_an_inner_peak_counts_for_the_outer_phase(records: list[dict[str, Any]]) -> None:
    with memory_phase("train", records.append):
        with memory_phase("evaluate", records.append):
            hold_and_drop()
        with memory_phase("evaluate", records.append):
            pass
    inner, later, outer = records
    assert outer["peak_gib"] >= inner["peak_gib"] > later["peak_gib"]


def test_an_outer_peak_before_an_inner_phase_is_not_lost(records: list[dict[str, Any]]) -> None:
    with memory_phase("train", records.append):
        hold_and_drop()
        with memory_phase("evaluate", records.append):
            pass
    inner, outer = records
    assert outer["peak_gib"] - inner["peak_gib"] > 0.5 * MIB_64 / 2**30


def test_a_phase_that_fails_is_recorded(records: list[dict[str, Any]]) -> None:
    with pytest.raises(ZeroDivisionError), memory_phase("train", records.append):
        _ = 1 / 0
    assert [r["phase"] for r in records] == ["train"]
    assert not memory._open_phases
