"""Tiny trials for the engine's tests, and the plain settings they are trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from engine_kit import LABELS, Records, text_rows, tiny_generator, tiny_head
from torch import nn

from emotion_sweeps.training.rows import TextRows


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose more to waiting threads than they win by them, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def settings(records: Records) -> Callable[..., dict[str, Any]]:
    """The engine's keyword settings with small values; arguments change them."""

    def make(**changes: Any) -> dict[str, Any]:
        values = {
            "seed": 3,
            "device": torch.device("cpu"),
            "precision": "fp32",
            "global_batch_size": 8,
            "micro_batch_size": 8,
            "eval_batch_size": 16,
            "epochs": 2,
            "learning_rate": 1e-2,
            "weight_decay": 0.01,
            "scheduler": "linear",
            "warmup": 2,
            "selection_metric": "loss",
            "on_record": records,
            "log_every": 1,
        }
        return values | changes

    return make


@pytest.fixture
def head_options() -> dict[str, Any]:
    return {
        "label_names": LABELS,
        "multilabel": True,
        "head_modules": ["classifier"],
        "head_learning_rate": 2e-2,
        "pad_id": 1,
    }


@pytest.fixture
def make_rows() -> Callable[..., TextRows]:
    return text_rows


@pytest.fixture
def make_head() -> Callable[..., nn.Module]:
    return tiny_head


@pytest.fixture
def make_generator() -> Callable[..., nn.Module]:
    return tiny_generator
