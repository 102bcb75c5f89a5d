"""Run folders as a trial leaves them, made by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Result = dict[str, Any]


def merge(into: Result, changes: Result) -> Result:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
    return into


def result(name: str = "exp0_r16", **changes: Any) -> Result:
    """A complete trial's result.json; `loss` and `macro_f1` set the bests, other keyword arguments are merged in."""
    loss, macro_f1 = changes.pop("loss", 0.33), changes.pop("macro_f1", 0.55)
    base: Result = {
        "schema": 1,
        "name": name,
        "status": "complete",
        "objective": {"metric": "loss", "direction": "minimize", "value": loss, "step": 120, "epoch": 2.0},
        "selection": {"metric": "loss", "direction": "minimize", "value": loss, "step": 120, "epoch": 2.0},
        "best": {
            "loss": {"value": loss, "step": 120, "epoch": 2.0},
            "macro_f1": {"value": macro_f1, "step": 120, "epoch": 2.0},
        },
        "kept": {"step": 120, "epoch": 2.0, "metrics": {"loss": loss, "macro_f1": macro_f1}},
        "final": {"step": 120, "epoch": 2.0, "metrics": {"loss": loss, "macro_f1": macro_f1}},
        "test": None,
        "lora": {"r": 16, "alpha": 32.0, "dropout": 0.05, "target_modules": "all-linear"},
        "scheduler": "linear",
        "model": "minilm",
        "task": "multilabel_head",
        "augment": "none",
        "config": {
            "model": {"name": "minilm"},
            "task": {"name": "multilabel_head", "weighting": "sqrt", "weight_cap": 5.0, "label_smoothing": 0.0},
            "lora": {"r": 16},
            "data": {"name": "demo", "split_seed": 0},
            "name": name,
            "seed": 0,
        },
        "trainable_parameters": 1234567,
        "wall_time_s": 90.0,
        "seeds": {"seed": 0, "split_seed": 0},
        "data": {
            "name": "demo",
            "fingerprint": "a" * 64,
            "label_names": ["joy", "fear"],
            "num_validation": 100,
            "multilabel": True,
        },
        "stand_in": False,
        "error": None,
        "trial_number": 0,
    }
    return merge(base, copy.deepcopy(changes))


def failure(name: str, message: str = "CUDA out of memory") -> Result:
    """A failed trial's result.json."""
    error = {"class": "RuntimeError", "message": message}
    return {"schema": 1, "name": name, "status": "failed", "error": error, "config": {"data": {"name": "demo"}}}


@pytest.fixture
def make_result() -> Callable[..., Result]:
    return result


@pytest.fixture
def make_failure() -> Callable[..., Result]:
    return failure


@pytest.fixture
def write_runs(tmp_path: Path) -> Callable[..., Path]:
    """Writes results as the runs 0, 1, ... of a sweep and returns its folder."""

    def write(*results: Result, sweep: str = "multirun/2026-01-01/10-00-00") -> Path:
        folder = tmp_path / sweep
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "multirun.yaml").touch()
        for number, content in enumerate(results):
            run = folder / str(number)
            (run / ".hydra").mkdir(parents=True)
            (run / ".hydra" / "config.yaml").touch()
            (run / "result.json").write_text(json.dumps(content), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def rows_of(write_runs: Callable[..., Path]) -> Callable[..., list[Any]]:
    """Rows read back from results."""

    def read(*results: Result) -> list[Any]:
        from emotion_sweeps.report.results import read_runs

        found = read_runs([write_runs(*results)])
        assert not found.problems
        return found.rows

    return read
