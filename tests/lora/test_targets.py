"""Targets: what PEFT itself matches with the resolved names is what the preset means, and never the head."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import inspect_matched_modules
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from emotion_sweeps.errors import UserError
from emotion_sweeps.lora import targets
from emotion_sweeps.lora.targets import matched_modules, resolve_targets

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
BERT = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
DECODER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHORT = {
    "attention": ["query", "value"],
    "attention_mlp": ["query", "value", "attention.output.dense", "intermediate.dense"],
}
SHORT_DECODER = {"attention": ["q_proj", "v_proj"], "attention_mlp": ["q_proj", "v_proj", "o_proj", "gate_proj"]}


def peft_matches(model: PreTrainedModel, entries: Any, task_type: str = "SEQ_CLS") -> set[str]:
    """Full names that PEFT adapts, asked of PEFT after the injection."""
    peft_model = get_peft_model(model, LoraConfig(target_modules=entries, task_type=task_type, r=2))
    matched: list[str] = inspect_matched_modules(peft_model.base_model)["matched"]
    return {name for name in matched if ".lora_" not in name and not name.endswith("base_layer")}


def roles(layers: list[str], prefix: str) -> set[str]:
    """`encoder.layer.0.attention.output.dense`-like full names of the tiny models' two layers."""
    inside = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "q_proj": "self_attn.q_proj",
        "k_proj": "self_attn.k_proj",
        "v_proj": "self_attn.v_proj",
        "o_proj": "self_attn.o_proj",
        "gate_proj": "mlp.gate_proj",
        "up_proj": "mlp.up_proj",
        "down_proj": "mlp.down_proj",
    }
    return {f"{prefix}.{index}.{inside.get(layer, layer)}" for index in range(2) for layer in layers}


@pytest.mark.parametrize("preset", ["all-linear", "attention", "attention_mlp"])
@pytest.mark.parametrize(
    ("name", "pooling", "prefix"),
    [
        ("roberta_tiny", "first", "roberta.encoder.layer"),
        ("roberta_tiny", "mean", "backbone.encoder.layer"),
        ("gemma3_tiny", "last", "model.layers"),
        ("gemma3_tiny", "mean", "backbone.layers"),
        ("qwen3_tiny", "generate", "model.layers"),
        ("qwen2_5_tiny", "last", "model.layers"),
    ],
)
def test_presets_mean_the_same_layers_in_every_family(
    preset: str, name: str, pooling: str, prefix: str, base: Callable[..., PreTrainedModel]
) -> None:
    model = base(name, pooling)
    resolved = resolve_targets(model, preset)
    encoder = name == "roberta_tiny"
    layers = (SHORT if encoder else SHORT_DECODER).get(preset, BERT if encoder else DECODER)
    expected = roles(layers, prefix)
    assert set(matched_modules(model, resolved)) == expected
    assert peft_matches(model, resolved, "CAUSAL_LM" if pooling == "generate" else "SEQ_CLS") == expected


@pytest.mark.parametrize(
    ("name", "pooling", "task_type"),
    [
        ("gemma3_tiny", "last", "SEQ_CLS"),
        ("roberta_tiny", "mean", "SEQ_CLS"),
        ("qwen2_5_tiny", "generate", "CAUSAL_LM"),
    ],
)
def test_all_linear_is_pefts_own(name: str, pooling: str, task_type: str, base: Callable[..., PreTrainedModel]) -> None:
    ours = set(matched_modules(base(name, pooling), resolve_targets(base(name, pooling), "all-linear")))
    assert ours == peft_matches(base(name, pooling), "all-linear", task_type)


def build(model_type: str, auto: Any = AutoModelForSequenceClassification, **options: Any) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = auto.from_config(AutoConfig.for_model(model_type, **{**SIZES, **options}))
    return model


@pytest.mark.parametrize(
    ("model_type", "attention", "mlp"),
    [
        ("distilbert", {"q_lin", "v_lin"}, {"out_lin", "lin1"}),
        ("deberta-v2", {"query_proj", "value_proj"}, {"attention.output.dense", "intermediate.dense"}),
        ("mpnet", {"attn.q", "attn.v"}, {"attn.o", "intermediate.dense"}),
        ("opt", {"q_proj", "v_proj"}, {"self_attn.out_proj", "fc1"}),
        ("phi3", {"qkv_proj"}, {"o_proj", "gate_up_proj"}),
        ("gpt2", {"c_attn"}, {"attn.c_proj", "c_fc"}),
        ("gpt_neox", {"query_key_value"}, {"attention.dense", "dense_h_to_4h"}),
    ],
)
def test_other_architectures_have_the_roles_too(model_type: str, attention: set[str], mlp: set[str]) -> None:
    options = {"dim": 32, "n_layers": 1, "n_heads": 2} if model_type == "distilbert" else {}
    model = build(model_type, pad_token_id=1, **options)

    def hit(preset: str) -> set[str]:
        names = matched_modules(model, resolve_targets(model, preset))
        return {entry for entry in attention | mlp for name in names if name.endswith(f".{entry}")}

    assert hit("attention") == attention
    assert hit("attention_mlp") == attention | mlp
    every = matched_modules(model, resolve_targets(model, "all-linear"))
    assert len(every) >= len(matched_modules(model, resolve_targets(model, "attention_mlp")))


def test_explicit_names_are_kept_as_given(base: Callable[..., PreTrainedModel]) -> None:
    model = base("qwen3_tiny")
    assert resolve_targets(model, ["v_proj", "q_proj", "v_proj"]) == ["v_proj", "q_proj"]
    assert resolve_targets(model, ["layers.1.mlp.up_proj"]) == ["layers.1.mlp.up_proj"]
    assert matched_modules(model, ["layers.1.mlp.up_proj"]) == ["model.layers.1.mlp.up_proj"]
    assert resolve_targets(model, ["embed_tokens"]) == ["embed_tokens"]


def test_an_entry_that_reaches_into_the_head_is_narrowed(base: Callable[..., PreTrainedModel]) -> None:
    model = base("roberta_tiny", "first")
    entries = resolve_targets(model, ["dense"])
    matched = {name for name, _ in model.named_modules() if any(name.endswith(f".{entry}") for entry in entries)}
    assert matched == roles(["attention.output.dense", "intermediate.dense", "output.dense"], "roberta.encoder.layer")


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        (["q_porj"], 'q_porj matches no module; did you mean "q_proj"'),
        (["v_proj", "query"], "query matches no module"),
        (["proj"], "proj matches no module"),  # PEFT compares whole names, not parts of them
        (["score"], "score is part of the class head"),
        (["self_attn"], "self_attn is no linear layer"),
    ],
)
def test_an_entry_that_matches_nothing_lists_what_is_there(
    entries: list[str], told: str, base: Callable[..., PreTrainedModel]
) -> None:
    with pytest.raises(UserError) as error:
        resolve_targets(base("qwen3_tiny"), entries)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(error.value)


def test_robertas_head_layers_are_no_targets(base: Callable[..., PreTrainedModel]) -> None:
    with pytest.raises(UserError, match="out_proj is part of the class head"):
        resolve_targets(base("roberta_tiny", "first"), ["out_proj"])


def test_an_unknown_preset_gets_a_suggestion(base: Callable[..., PreTrainedModel]) -> None:
    with pytest.raises(UserError, match='did you mean "all-linear"'):
        resolve_targets(base("qwen3_tiny"), "all_linear")


def test_a_preset_without_a_counterpart_is_refused() -> None:
    fnet = build("fnet", hidden_size=32)
    with pytest.raises(UserError, match="no query and value layers known by name"):
        resolve_targets(fnet, "attention")
    assert resolve_targets(fnet, "all-linear")


def test_a_role_that_is_missing_is_named(
    base: Callable[..., PreTrainedModel], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_GATE", ("no_such_layer",))
    with caplog.at_level(logging.WARNING, "emotion_sweeps"):
        assert resolve_targets(base("qwen3_tiny"), "attention_mlp") == ["o_proj", "q_proj", "v_proj"]
    assert "no gate layer known by name here" in caplog.text


def test_parts_that_see_no_text_get_no_adapter() -> None:
    text = {**SIZES, "num_key_value_heads": 1, "head_dim": 16}
    vision = {**SIZES, "image_size": 28, "patch_size": 14}
    model = build("gemma3", AutoModelForCausalLM, text_config=text, vision_config=vision)
    names = matched_modules(model, resolve_targets(model, "all-linear"))
    assert len(names) == 2 * len(DECODER) and not [name for name in names if "vision" in name]
