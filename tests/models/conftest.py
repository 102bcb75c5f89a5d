"""Loaders for the tests of the models: twins by name, tiny checkpoints of other architectures in folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from emotion_sweeps import notices
from emotion_sweeps.models.load import load_classifier
from emotion_sweeps.models.sources import ModelSource, resolve_source
from emotion_sweeps.models.tokenizers import load_tokenizer

LABELS = ["anger", "joy", "sadness"]


@pytest.fixture(autouse=True)
def unsaid() -> None:
    """Notices are said once a process: each test starts with none said."""
    notices._said.clear()


@pytest.fixture
def classifier() -> Callable[..., PreTrainedModel]:
    """`classifier("roberta_tiny", pooling="mean", ...)`, or a ModelSource in place of the twin's name."""

    def load(source: str | ModelSource, **changes: Any) -> PreTrainedModel:
        if isinstance(source, str):
            source = resolve_source(path=f"twin:{source}")
        settings: dict[str, Any] = {
            "label_names": LABELS,
            "multilabel": True,
            "pooling": "auto",
            "dtype": torch.float32,
            "quantization": None,
            "device_map": None,
            "attn_implementation": None,
            "seed": 0,
            **changes,
        }
        if "pad_token_id" not in settings:
            settings["pad_token_id"] = load_tokenizer(source, padding_side="right").pad_token_id
        return load_classifier(source, **settings)

    return load


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., ModelSource]:
    """A folder with a freshly drawn model of any config, as a source."""

    def save(config: PreTrainedConfig, auto_class: Any = AutoModel, **options: Any) -> ModelSource:
        folder = tmp_path / f"tiny-{config.model_type}"
        auto_class.from_config(config, **options).save_pretrained(folder)
        return resolve_source(path=str(folder))

    return save
