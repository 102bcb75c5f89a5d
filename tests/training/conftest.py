"""Tiny trials for the engine's tests: a model small enough to train in seconds, rows, and the plain settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Qwen3Config,
    RobertaConfig,
)

from emotion_sweeps.training.rows import TextRows
from emotion_sweeps.training.seeding import seed_everything

LABELS = ["anger", "joy", "fear"]


def text_rows(count: int, seed: int = 0, *, multilabel: bool = True, vocab: int = 60) -> TextRows:
    """Token rows of 3 to 11 tokens whose labels follow from which tokens they hold."""
    rng = np.random.default_rng(seed)
    rows = [[int(t) for t in rng.integers(5, vocab, rng.integers(3, 12))] for _ in range(count)]
    score = np.array([[sum(t % 3 == label for t in row) / len(row) for label in range(3)] for row in rows])
    labels = (score > 0.35).astype(np.uint8) if multilabel else np.eye(3, dtype=np.uint8)[score.argmax(1)]
    return TextRows([f"row{i}" for i in range(count)], rows, labels)


def tiny_head(*, seed: int = 0, dropout: float = 0.0, num_labels: int = 3, r: int = 4) -> nn.Module:
    """A two-layer RoBERTa with a stock class head and a LoRA on its attention."""
    seed_everything(seed)
    config = RobertaConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        pad_token_id=1,
        num_labels=num_labels,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
    )
    lora = LoraConfig(
        task_type="SEQ_CLS", r=r, lora_alpha=2 * r, lora_dropout=dropout, target_modules=["query", "value"]
    )
    return get_peft_model(AutoModelForSequenceClassification.from_config(config), lora)


def tiny_generator(*, seed: int = 0, width: int = 16, r: int = 4) -> nn.Module:
    """A two-layer Qwen3 with a LoRA on all its projections."""
    seed_everything(seed)
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=width // 2,
        intermediate_size=2 * width,
        pad_token_id=0,
        eos_token_id=2,
        initializer_range=0.2,
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=r, lora_alpha=2 * r, target_modules="all-linear")
    return get_peft_model(AutoModelForCausalLM.from_config(config), lora)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose more to waiting threads than they win by them, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Records:
    """Collects what the engine emits."""

    all: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, record: dict[str, Any]) -> None:
        self.all.append(record)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.all if record["kind"] == kind]


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
