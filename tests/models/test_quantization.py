"""4-bit: the backbone's linear layers are quantised, and not one weight of the head is."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from emotion_sweeps.errors import UserError
from emotion_sweeps.models import quantization
from emotion_sweeps.models.heads import head_names
from emotion_sweeps.models.load import load_generator
from emotion_sweeps.models.quantization import (
    assert_head_full_precision,
    bitsandbytes_config,
    describe_quantization,
    for_architecture,
)
from emotion_sweeps.models.sources import ModelSource, resolve_source

Load = Callable[..., PreTrainedModel]
IDS = torch.randint(5, 200, (4, 12), generator=torch.Generator().manual_seed(0))
TINY = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50}


def linear_layers(model: PreTrainedModel) -> dict[str, str]:
    return {n: type(m).__name__ for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}


@pytest.mark.parametrize(
    ("name", "pooling", "head_layers"),
    [
        ("roberta_tiny", "first", {"classifier.dense", "classifier.out_proj"}),
        ("roberta_tiny", "mean", {"classifier"}),
        ("gemma3_tiny", "last", {"score"}),
        ("qwen3_tiny", "last", {"score"}),
        ("qwen2_5_tiny", "mean", {"classifier"}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_everything_but_the_head_is_quantised(
    name: str, pooling: str, head_layers: set[str], dtype: torch.dtype, classifier: Load
) -> None:
    four_bit = bitsandbytes_config(compute_dtype=dtype)
    model = classifier(name, pooling=pooling, dtype=dtype, quantization=four_bit)
    layers = linear_layers(model)
    assert {layer for layer, kind in layers.items() if kind == "Linear"} == head_layers
    assert {kind for layer, kind in layers.items() if layer not in head_layers} == {"Linear4bit"}
    assert_head_full_precision(model)
    assert model.is_loaded_in_4bit and model.is_quantized
    logits = model(input_ids=IDS).logits
    assert logits.dtype == torch.float32 and bool(torch.isfinite(logits).all())


@torch.no_grad()
def test_four_bit_logits_stay_near_the_exact_ones(classifier: Load) -> None:
    exact = classifier("qwen3_tiny", pooling="mean")(input_ids=IDS).logits
    four_bit = bitsandbytes_config(compute_dtype=torch.float32)
    rough = classifier("qwen3_tiny", pooling="mean", quantization=four_bit)(input_ids=IDS).logits
    assert 0 < (exact - rough).abs().mean() < 0.5 * exact.abs().mean()


def test_a_generators_output_matrix_is_not_quantised() -> None:
    for name in ("gemma3_tiny", "qwen2_5_tiny"):  # tied and untied
        model = load_generator(
            resolve_source(path=f"twin:{name}"),
            dtype=torch.float32,
            quantization=bitsandbytes_config(compute_dtype=torch.float32),
            device_map=None,
            attn_implementation=None,
            pad_token_id=0,
        )
        plain = [layer for layer, kind in linear_layers(model).items() if kind == "Linear"]
        assert plain == ["lm_head"] and model.lm_head.weight.dtype == torch.float32


def test_heads_of_other_names_are_skipped_too(checkpoint: Callable[..., ModelSource], classifier: Load) -> None:
    config = AutoConfig.for_model("distilbert", dim=64, hidden_dim=64, n_layers=1, n_heads=2, vocab_size=50)
    source = checkpoint(config)
    model = classifier(source, pad_token_id=0, quantization=bitsandbytes_config(compute_dtype=torch.float32))
    assert head_names(model) == ["pre_classifier", "classifier"]
    assert_head_full_precision(model)
    assert "Linear4bit" in linear_layers(model).values()


def test_skipped_modules_come_from_the_architecture() -> None:
    asked = bitsandbytes_config()
    assert asked is not None
    for auto, config, expected in (
        (AutoModelForSequenceClassification, AutoConfig.for_model("distilbert"), {"pre_classifier", "classifier"}),
        (AutoModelForCausalLM, AutoConfig.for_model("gpt_neox", **TINY), {"lm_head"}),
        (AutoModelForCausalLM, AutoConfig.for_model("qwen3", **TINY), {"lm_head"}),
    ):
        found = for_architecture(asked, auto, config)
        assert found is not None and expected <= set(found.llm_int8_skip_modules)
    bare = for_architecture(asked, AutoModel, AutoConfig.for_model("bert", **TINY))
    assert bare is not None and "encoder" not in bare.llm_int8_skip_modules
    assert asked.llm_int8_skip_modules == ["classifier", "score", "lm_head"]  # the caller's is left as it was


def test_a_head_below_fp32_is_noticed(classifier: Load) -> None:
    model = classifier("roberta_tiny")
    assert_head_full_precision(model)
    model.classifier.out_proj.bfloat16()
    with pytest.raises(AssertionError, match="classifier.out_proj.weight of the class head is torch.bfloat16"):
        assert_head_full_precision(model)


def test_the_description_rebuilds_the_config() -> None:
    config = bitsandbytes_config(compute_dtype=torch.float32, double_quant=False)
    described = describe_quantization(config)
    assert described == json.loads(json.dumps(described))
    again = {**described, "compute_dtype": getattr(torch, described["compute_dtype"])}
    assert bitsandbytes_config(**again).to_dict() == config.to_dict()
    assert describe_quantization(None) is None
    assert bitsandbytes_config(load_in_4bit=False) is None


def test_without_bitsandbytes_it_is_a_users_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="hardware.load_in_4bit=true needs bitsandbytes"):
        bitsandbytes_config()
