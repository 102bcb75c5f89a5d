from __future__ import annotations

import json
import math

import numpy as np
import pytest

from emotion_sweeps.tracking.records import (
    eval_record,
    jsonl_safe,
    memory_record,
    notice_record,
    scalars,
    train_record,
)

TRAIN = train_record(
    step=3, epoch=0.5, loss=0.7, learning_rate=1e-3, head_learning_rate=None, grad_norm=math.nan, time_s=1.5
)


def test_records_carry_their_kind_and_fields() -> None:
    assert TRAIN["kind"] == "train" and TRAIN["step"] == 3
    assert eval_record(split="validation", step=4, epoch=1.0, time_s=2.0, metrics={"loss": 0.3}) == {
        "kind": "eval",
        "split": "validation",
        "step": 4,
        "epoch": 1.0,
        "time_s": 2.0,
        "loss": 0.3,
    }
    on_cpu = memory_record(phase="train", before_gib=1, peak_gib=3, after_gib=2)
    assert "device_peak_gib" not in on_cpu
    assert memory_record(phase="train", before_gib=1, peak_gib=3, after_gib=2, device_peak_gib=9) == {
        **on_cpu,
        "device_peak_gib": 9,
    }
    assert notice_record("fp32 it is") == {"kind": "notice", "text": "fp32 it is"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float32("inf"), None),
        (np.float64(0.25), 0.25),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([[1.0, np.nan], [2.0, 3.0]]), [[1.0, None], [2.0, 3.0]]),
        ({"a": (np.int32(1), {"b": math.inf})}, {"a": [1, {"b": None}]}),
        ({3: "x"}, {"3": "x"}),
        ("é\n", "é\n"),
        (True, True),
    ],
)
def test_jsonl_safe_gives_strict_json_types(value: object, expected: object) -> None:
    safe = jsonl_safe(value)
    assert safe == expected and type(safe) is type(expected)
    assert json.loads(json.dumps(safe, allow_nan=False)) == expected


def test_jsonl_safe_writes_what_it_does_not_know_as_text(tmp_path) -> None:
    assert jsonl_safe({"folder": tmp_path}) == {"folder": str(tmp_path)}


def test_scalars_name_measurements_as_dashboards_show_them() -> None:
    named = scalars(TRAIN)
    assert math.isnan(named.pop("train/grad_norm"))
    assert named == {"train/epoch": 0.5, "train/loss": 0.7, "train/learning_rate": 1e-3, "train/time_s": 1.5}
    evaluated = eval_record(split="test", step=1, epoch=1, time_s=0, metrics={"macro_f1": np.float32(0.5)})
    assert scalars(evaluated) == {"test/epoch": 1.0, "test/time_s": 0.0, "test/macro_f1": 0.5}
    memory = memory_record(phase="load", before_gib=1, peak_gib=2, after_gib=1)
    assert scalars(memory)["memory/load/peak_gib"] == 2.0
    assert scalars(notice_record("7")) == {}
