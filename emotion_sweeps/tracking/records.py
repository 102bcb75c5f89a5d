"""What a run tells about itself: flat dicts with a `kind`, made by training, written by the trackers.

Kinds: `train` (every few steps), `eval` (one evaluation of one split), `memory` (one phase of the run) and
`notice` (something the user should know). A record is strict JSON once it went through `jsonl_safe`.
`scalars` gives the same numbers the names that W&B and TensorBoard show: `train/loss`, `validation/macro_f1`,
`memory/train/peak_gib`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

Record = Mapping[str, Any]

# Where a record stands and what it says in words; everything else in it is a measurement.
_NOT_MEASURED = ("kind", "split", "phase", "step", "text")


def train_record(
    *,
    step: int,
    epoch: float,
    loss: float,
    learning_rate: float,
    head_learning_rate: float | None,
    grad_norm: float | None,
    time_s: float,
) -> dict[str, Any]:
    """The training loss since the last such record, with the learning rates now in force."""
    return {
        "kind": "train",
        "step": step,
        "epoch": epoch,
        "loss": loss,
        "learning_rate": learning_rate,
        "head_learning_rate": head_learning_rate,
        "grad_norm": grad_norm,
        "time_s": time_s,
    }


def eval_record(*, split: str, step: int, epoch: float, time_s: float, metrics: Mapping[str, float]) -> dict[str, Any]:
    """One evaluation: `metrics` by the names of `training.metrics`, without a prefix."""
    return {"kind": "eval", "split": split, "step": step, "epoch": epoch, "time_s": time_s, **metrics}


def memory_record(
    *, phase: str, before_gib: float, peak_gib: float, after_gib: float, device_peak_gib: float | None = None
) -> dict[str, Any]:
    """Memory before, at the peak of and after one phase (load, train, evaluate, predict, save)."""
    record = {
        "kind": "memory",
        "phase": phase,
        "before_gib": before_gib,
        "peak_gib": peak_gib,
        "after_gib": after_gib,
    }
    return record if device_peak_gib is None else {**record, "device_peak_gib": device_peak_gib}


def notice_record(text: str) -> dict[str, Any]:
    """Something that the reader of the run should know."""
    return {"kind": "notice", "text": text}


def jsonl_safe(value: Any) -> Any:
    """`value` in strict JSON types: NaN and infinities are None, arrays are lists, what is unknown is its text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): jsonl_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonl_safe(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays, tensors
        return jsonl_safe(value.tolist())
    return str(value)


def scalars(record: Record) -> dict[str, float]:
    """The measurements of a record by dashboard name; texts and missing values are left out, NaN is kept."""
    prefix = _prefix(record)
    found: dict[str, float] = {}
    for key, value in record.items():
        if key in _NOT_MEASURED or isinstance(value, bool):
            continue
        plain = value.item() if hasattr(value, "item") else value
        if isinstance(plain, Real):
            found[f"{prefix}/{key}"] = float(plain)
    return found


def _prefix(record: Record) -> str:
    kind = str(record.get("kind", "record"))
    if kind == "eval":
        return str(record.get("split", kind))
    return f"memory/{record.get('phase', 'run')}" if kind == "memory" else kind
