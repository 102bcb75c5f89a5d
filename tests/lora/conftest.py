"""Models and adapters for the tests of the LoRA layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emotion_sweeps import notices
from emotion_sweeps.lora.inject import add_adapter
from emotion_sweeps.models.load import load_classifier, load_generator
from emotion_sweeps.models.sources import ModelSource, resolve_source
from emotion_sweeps.models.tokenizers import load_tokenizer

LABELS = ["anger", "joy", "sadness"]
LORA: dict[str, Any] = {
    "r": 4,
    "alpha": 8.0,
    "dropout": 0.0,
    "target_modules": "all-linear",
    "use_rslora": False,
    "use_dora": False,
    "bias": "none",
    "modules_to_save": [],
}


@pytest.fixture(autouse=True)
def unsaid() -> None:
    """Notices are said once a process: each test starts with none said."""
    notices._said.clear()


@pytest.fixture
def base() -> Callable[..., PreTrainedModel]:
    """`base("roberta_tiny", "mean")`: a twin (or source) with a class head; "generate": as a generator."""

    def load(source: str | ModelSource, pooling: str = "auto", **changes: Any) -> PreTrainedModel:
        if isinstance(source, str):
            source = resolve_source(path=f"twin:{source}")
        shared: dict[str, Any] = {
            "dtype": torch.float32,
            "quantization": None,
            "device_map": None,
            "attn_implementation": None,
            "pad_token_id": load_tokenizer(source, padding_side="right").pad_token_id,
            **changes,
        }
        if pooling == "generate":
            return load_generator(source, **shared)
        return load_classifier(source, label_names=LABELS, multilabel=True, pooling=pooling, seed=0, **shared)

    return load


@pytest.fixture
def adapted() -> Callable[..., PeftModel]:
    """`adapted(model, r=8)`: the model with an adapter on it."""

    def adapt(model: PreTrainedModel, **changes: Any) -> PeftModel:
        generator = model.get_output_embeddings() is not None
        defaults = {
            **LORA,
            "task_type": "CAUSAL_LM" if generator else "SEQ_CLS",
            "base_reference": model.name_or_path,
            "seed": 1,
        }
        return add_adapter(model, **{**defaults, **changes})

    return adapt


@pytest.fixture
def tokenizer() -> Callable[[str], PreTrainedTokenizerBase]:
    """`tokenizer("qwen3_tiny")`: a twin's tokenizer."""
    return lambda name: load_tokenizer(resolve_source(path=f"twin:{name}"), padding_side="right")
