"""Encoder or decoder is read from the config, and what cannot be read is asked for."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from emotion_sweeps.errors import UserError
from emotion_sweeps.models.architecture import kind_of, model_kind, resolve_pooling, supported_attention
from emotion_sweeps.models.sources import ModelSource, resolve_source

SOURCE = ModelSource("somewhere", "somewhere")


@pytest.mark.parametrize(
    ("model_type", "options", "kind"),
    [
        ("bert", {}, "encoder"),
        ("roberta", {}, "encoder"),
        ("modernbert", {}, "encoder"),
        ("deberta-v2", {}, "encoder"),
        ("distilbert", {}, "encoder"),
        ("bert", {"is_decoder": True}, "decoder"),
        ("qwen2", {}, "decoder"),
        ("qwen3", {}, "decoder"),
        ("gemma3_text", {}, "decoder"),
        ("gemma3", {}, "decoder"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "encoder"),
        ("gpt2", {}, "decoder"),
        ("llama", {}, "decoder"),
        ("modernbert-decoder", {}, "decoder"),
    ],
)
def test_the_kind_follows_from_the_config(model_type: str, options: dict[str, Any], kind: str) -> None:
    assert kind_of(AutoConfig.for_model(model_type, **options), SOURCE) == kind


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_encoder_decoders_are_refused(model_type: str) -> None:
    with pytest.raises(UserError, match="encoder-decoder"):
        kind_of(AutoConfig.for_model(model_type), SOURCE)


def test_a_config_that_does_not_tell_asks_for_the_kind() -> None:
    with pytest.raises(UserError, match="set model.kind=encoder or model.kind=decoder"):
        kind_of(AutoConfig.for_model("canine"), SOURCE)
    told = PreTrainedConfig(architectures=["NewestForCausalLM"])
    assert kind_of(told, SOURCE) == "decoder"


def test_a_given_kind_wins_and_auto_does_not() -> None:
    source = resolve_source(path="twin:roberta_tiny")
    assert model_kind(source) == model_kind(source, kind="auto") == "encoder"
    assert model_kind(source, kind="decoder") == "decoder"


def test_pooling_fits_the_kind() -> None:
    assert [resolve_pooling("auto", kind) for kind in ("encoder", "decoder")] == ["first", "last"]
    assert [resolve_pooling("mean", kind) for kind in ("encoder", "decoder")] == ["mean", "mean"]
    with pytest.raises(UserError, match="model.pooling=last needs a decoder"):
        resolve_pooling("last", "encoder")
    with pytest.raises(UserError, match="model.pooling=first needs an encoder"):
        resolve_pooling("first", "decoder")


def test_without_fused_attention_the_eager_one_is_used_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "emotion_sweeps"):
        assert supported_attention(AutoModel, AutoConfig.for_model("deberta-v2"), "sdpa") == "eager"
    assert "deberta-v2" in caplog.text
    assert supported_attention(AutoModel, AutoConfig.for_model("bert"), "sdpa") == "sdpa"
    assert supported_attention(AutoModel, AutoConfig.for_model("bert"), None) is None
