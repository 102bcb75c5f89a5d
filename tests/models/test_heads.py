"""Heads are found by structure in any architecture, and drawn as a closed form of the seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from emotion_sweeps.models.heads import HEAD_STD, draw_head, feed_head_full_precision, head_names, output_layer_name

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
MODERN = dict.fromkeys((f"{name}_token_id" for name in ("pad", "eos", "bos", "cls", "sep")), 1)


def build(auto: Any, model_type: str, **options: Any) -> Any:
    with torch.device("meta"):
        return auto.from_config(AutoConfig.for_model(model_type, **options))


@pytest.mark.parametrize(
    ("model_type", "options", "heads", "output"),
    [
        ("bert", SIZES, ["classifier"], "classifier"),
        ("roberta", SIZES, ["classifier"], "classifier.out_proj"),
        ("distilbert", {"dim": 32, "n_layers": 1, "n_heads": 2}, ["pre_classifier", "classifier"], "classifier"),
        ("deberta-v2", SIZES, ["pooler", "classifier"], "classifier"),
        ("modernbert", {**SIZES, **MODERN}, ["head", "classifier"], "classifier"),
        ("gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 2}, ["score"], "score"),
        ("qwen3", SIZES, ["score"], "score"),
    ],
)
def test_the_head_is_what_stands_beside_the_backbone(
    model_type: str, options: dict[str, Any], heads: list[str], output: str
) -> None:
    model = build(AutoModelForSequenceClassification, model_type, **options)
    assert head_names(model) == heads
    assert output_layer_name(model) == output


def test_generators_and_bare_backbones_have_none() -> None:
    assert head_names(build(AutoModelForCausalLM, "qwen3", **SIZES)) == []
    assert head_names(build(AutoModel, "bert", **SIZES)) == []


def test_the_draw_is_the_generators_own() -> None:
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **SIZES))
    draw_head(model, seed=9)
    expected = torch.empty(2, 32).normal_(0, HEAD_STD, generator=torch.Generator().manual_seed(9))
    assert torch.equal(model.classifier.weight, expected)
    assert torch.count_nonzero(model.classifier.bias) == 0


def test_what_is_kept_does_not_shift_the_rest_of_the_draw() -> None:
    config = AutoConfig.for_model("roberta", **SIZES)
    fresh, kept = (AutoModelForSequenceClassification.from_config(config) for _ in range(2))
    draw_head(fresh, seed=1)
    before = kept.classifier.dense.weight.clone()
    draw_head(kept, seed=1, keep={"classifier.dense.weight"})
    assert torch.equal(kept.classifier.dense.weight, before)
    assert torch.equal(kept.classifier.out_proj.weight, fresh.classifier.out_proj.weight)


def test_the_head_casts_what_it_is_fed() -> None:
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("qwen3", **SIZES))
    feed_head_full_precision(model)
    hidden = torch.randn(1, 3, 32, dtype=torch.bfloat16)
    assert model.score(hidden).dtype == torch.float32
    assert model.double().score(hidden).dtype == torch.float64
