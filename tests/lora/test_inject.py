"""The adapter equals PEFT's own from the same seed, trains in fp32 on any base, and names its base by reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from emotion_sweeps.errors import UserError
from emotion_sweeps.lora.inject import ensure_fp32_trainable
from emotion_sweeps.models.heads import assert_head_full_precision, head_names
from emotion_sweeps.models.quantization import bitsandbytes_config

Base = Callable[..., PreTrainedModel]
Adapted = Callable[..., PeftModel]
IDS = torch.randint(5, 200, (4, 12), generator=torch.Generator().manual_seed(0))


def trainable(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def four_bit(dtype: torch.dtype) -> dict[str, Any]:
    return {"dtype": dtype, "quantization": bitsandbytes_config(compute_dtype=dtype)}


def test_the_weights_are_pefts_own_from_that_seed(base: Base, adapted: Adapted) -> None:
    ours = adapted(base("qwen3_tiny", "last"), target_modules=["q_proj", "v_proj"], seed=7)
    torch.manual_seed(7)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="SEQ_CLS")
    assert equal(trainable(ours), trainable(get_peft_model(base("qwen3_tiny", "last"), config)))


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}, {"init_lora_weights": "gaussian"}])
def test_equal_seeds_give_equal_adapters_whatever_came_before(
    changes: dict[str, Any], base: Base, adapted: Adapted
) -> None:
    torch.manual_seed(1)
    one = trainable(adapted(base("roberta_tiny"), seed=5, **changes))
    torch.manual_seed(2)
    torch.rand(1000)
    same = trainable(adapted(base("roberta_tiny"), seed=5, **changes))
    other = trainable(adapted(base("roberta_tiny"), seed=6, **changes))
    assert equal(one, same) and not equal(one, other)


def test_the_global_generator_is_left_alone(base: Base, adapted: Adapted) -> None:
    model = base("roberta_tiny")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    adapted(model)
    assert torch.equal(torch.rand(4), expected)


@torch.no_grad()
def test_a_fresh_adapter_changes_no_logits(base: Base, adapted: Adapted) -> None:
    before = base("gemma3_tiny", "mean")(input_ids=IDS).logits
    after = adapted(base("gemma3_tiny", "mean")).eval()(input_ids=IDS).logits
    assert torch.equal(before, after)


@torch.no_grad()
@pytest.mark.parametrize(("use_rslora", "scaling"), [(False, 2.0), (True, 4.0)])
def test_a_trained_adapter_adds_scaled_ba(use_rslora: bool, scaling: float, base: Base, adapted: Adapted) -> None:
    model = adapted(base("qwen3_tiny"), target_modules=["o_proj"], use_rslora=use_rslora)
    layer = model.get_base_model().model.layers[0].self_attn.o_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(b, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, a.shape[1], generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(x), x @ layer.base_layer.weight.T + scaling * (x @ a.T) @ b.T)


@pytest.mark.parametrize(
    ("name", "pooling"), [("roberta_tiny", "first"), ("roberta_tiny", "mean"), ("qwen3_tiny", "last")]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "4bit"])
def test_only_adapter_and_head_train_and_do_so_in_fp32(
    name: str, pooling: str, precision: str, base: Base, adapted: Adapted
) -> None:
    settings = {"fp32": {}, "bf16": {"dtype": torch.bfloat16}, "4bit": four_bit(torch.bfloat16)}[precision]
    model = adapted(base(name, pooling, **settings)).train()
    trained = trainable(model)
    assert all("lora_" in key or ".modules_to_save." in key for key in trained)
    assert {value.dtype for value in trained.values()} == {torch.float32}
    heads = {key.split(".")[2] for key in trained if ".modules_to_save." in key}
    assert heads == set(head_names(model)) and len(heads) == 1
    assert_head_full_precision(model)
    model(input_ids=IDS).logits.square().sum().backward()
    moved = [
        key for key, p in model.named_parameters() if p.requires_grad and p.grad is not None and p.grad.abs().sum() > 0
    ]
    assert any("lora_B" in key for key in moved) and any(".modules_to_save." in key for key in moved)


def test_what_a_trainer_casts_down_can_be_cast_back(base: Base, adapted: Adapted) -> None:
    model = adapted(base("qwen3_tiny", "generate", **four_bit(torch.float32)))
    objects = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for parameter in objects.values():  # as TRL's SFTTrainer does on a quantised base
        parameter.data = parameter.data.to(torch.bfloat16)
    ensure_fp32_trainable(model)
    after = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 and p is objects[name] for name, p in after.items())
    assert {p.dtype for p in model.parameters() if "4bit" in type(p).__name__} == {torch.uint8}


@pytest.mark.parametrize(("name", "quantized"), [("gpt2", False), ("gpt2", True), ("llama", False)])
def test_fan_in_fan_out_follows_the_layer(
    name: str, quantized: bool, adapted: Adapted, base: Base, tmp_path: Path
) -> None:
    sizes = {"vocab_size": 50, "pad_token_id": 0}
    if name == "gpt2":
        config = AutoConfig.for_model("gpt2", n_embd=64, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1, **sizes)
    else:
        config = AutoConfig.for_model(
            "llama", hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, **sizes
        )
    model = AutoModelForSequenceClassification.from_config(config)
    if quantized:
        model.save_pretrained(tmp_path)
        quantization = bitsandbytes_config(compute_dtype=torch.float32)
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path, quantization_config=quantization)
    model.name_or_path = "tiny"
    peft_model = adapted(model)
    assert peft_model.peft_config["default"].fan_in_fan_out is (name == "gpt2" and not quantized)
    peft_model(input_ids=torch.tensor([[3, 4, 5]])).logits.sum().backward()


def test_conv1d_layers_merge_exactly(adapted: Adapted) -> None:
    config = AutoConfig.for_model("gpt2", n_embd=32, n_layer=1, n_head=2, vocab_size=50, bos_token_id=1, eos_token_id=1)
    model = AutoModelForSequenceClassification.from_config(config)
    model.config.pad_token_id = 0
    model.name_or_path = "tiny"
    peft_model = adapted(model).eval()
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        before = peft_model(input_ids=ids).logits
        after = peft_model.merge_and_unload()(input_ids=ids).logits
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)


def test_the_config_names_the_base_by_reference(base: Base, adapted: Adapted) -> None:
    model = adapted(
        base("roberta_tiny"), base_reference="someone/model", revision="v2", alpha=48.0, modules_to_save=["pooler"][:0]
    )
    config = model.peft_config["default"]
    assert config.base_model_name_or_path == "someone/model" and config.revision == "v2"
    assert config.lora_alpha == 48 and isinstance(config.lora_alpha, int)
    assert config.modules_to_save == ["classifier"]


def test_further_modules_can_be_trained_in_full(base: Base, adapted: Adapted) -> None:
    model = adapted(base("qwen2_5_tiny", "generate"), modules_to_save=["embed_tokens"])
    full = {name for name in trainable(model) if ".modules_to_save." in name}
    assert full == {"base_model.model.model.embed_tokens.modules_to_save.default.weight"}
    with pytest.raises(UserError, match='embed_token matches no module; did you mean "embed_tokens"'):
        adapted(base("qwen2_5_tiny", "generate"), modules_to_save=["embed_token"])


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_train_on_an_fp32_base_only(bias: str, base: Base, adapted: Adapted) -> None:
    model = adapted(base("roberta_tiny"), bias=bias)
    assert any(name.endswith("base_layer.bias") for name in trainable(model))
    with pytest.raises(UserError, match=f"lora.bias={bias} trains biases of the base"):
        adapted(base("roberta_tiny", dtype=torch.bfloat16), bias=bias)


def test_dropout_is_on_in_training_alone(base: Base, adapted: Adapted) -> None:
    model = adapted(base("gemma3_tiny", "last"), dropout=0.5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    with torch.no_grad():
        assert not torch.equal(model.train()(input_ids=IDS).logits, model(input_ids=IDS).logits)
        assert torch.equal(model.eval()(input_ids=IDS).logits, model(input_ids=IDS).logits)
