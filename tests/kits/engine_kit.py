"""Tiny trials for the engine's tests: models small enough to train in seconds, their rows, collected records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
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


@dataclass
class Records:
    """Collects what the engine emits."""

    all: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, record: dict[str, Any]) -> None:
        self.all.append(record)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.all if record["kind"] == kind]
