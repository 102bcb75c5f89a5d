"""Loading: the right class, a head of its own seed, logits that padding does not move, nothing random unseen."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    PreTrainedModel,
    RobertaConfig,
)

from emotion_sweeps.errors import UserError
from emotion_sweeps.models.heads import HEAD_STD, head_names
from emotion_sweeps.models.load import load_generator
from emotion_sweeps.models.sources import ModelSource, resolve_source
from emotion_sweeps.models.tokenizers import load_tokenizer

LABELS = ["anger", "joy", "sadness"]
TEXTS = ["no", "I can't believe we won, I am so happy!", "well 😀", "third delay this week and nobody says sorry"]
CASES = [
    ("roberta_tiny", "first", "RobertaForSequenceClassification"),
    ("roberta_tiny", "mean", "PooledClassifier"),
    ("gemma3_tiny", "last", "Gemma3TextForSequenceClassification"),
    ("gemma3_tiny", "mean", "PooledClassifier"),
    ("qwen3_tiny", "last", "Qwen3ForSequenceClassification"),
    ("qwen2_5_tiny", "last", "Qwen2ForSequenceClassification"),
]
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
Load = Callable[..., PreTrainedModel]


def head_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if name.split(".")[0] in head_names(model)
    }


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("name", "pooling", "class_name"), CASES)
def test_kind_and_pooling_decide_the_class(name: str, pooling: str, class_name: str, classifier: Load) -> None:
    model = classifier(name, pooling=pooling)
    assert type(model).__name__ == class_name
    assert not model.training
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {label: index for index, label in enumerate(LABELS)}
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.get_text_config().pad_token_id is not None
    assert model.config.get_text_config().use_cache is False


def test_one_label_a_text_is_another_problem_type(classifier: Load) -> None:
    assert classifier("roberta_tiny", multilabel=False).config.problem_type == "single_label_classification"


@pytest.mark.parametrize(("name", "pooling", "class_name"), CASES)
@torch.no_grad()
def test_padding_does_not_move_logits(name: str, pooling: str, class_name: str, classifier: Load) -> None:
    model = classifier(name, pooling=pooling)
    tokenizer = load_tokenizer(resolve_source(path=f"twin:{name}"), padding_side="right")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    together = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert together.shape == (len(TEXTS), len(LABELS)) and together.dtype == torch.float32
    for row, text in enumerate(TEXTS):
        alone = model(**tokenizer(text, return_tensors="pt")).logits
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)
    assert together.std(dim=0).min() > 1e-4  # different texts do get different logits


@pytest.mark.parametrize(
    ("name", "pooling"), [("roberta_tiny", "first"), ("roberta_tiny", "mean"), ("qwen3_tiny", "last")]
)
def test_the_head_depends_on_its_seed_alone(name: str, pooling: str, classifier: Load) -> None:
    torch.manual_seed(1)
    one = head_state(classifier(name, pooling=pooling, seed=5))
    torch.manual_seed(2)
    torch.rand(7)
    same = head_state(classifier(name, pooling=pooling, seed=5, dtype=torch.bfloat16))
    other = head_state(classifier(name, pooling=pooling, seed=6))
    assert equal(one, same) and not equal(one, other)
    for parameter, value in one.items():
        assert value.dtype == torch.float32
        assert value.abs().max() == 0 if parameter.endswith("bias") else 0.5 < value.std() / HEAD_STD < 2


def test_loading_leaves_the_global_generator_alone(classifier: Load) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    classifier("roberta_tiny")
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("name", "pooling"), [("roberta_tiny", "first"), ("gemma3_tiny", "last"), ("gemma3_tiny", "mean")]
)
@torch.no_grad()
def test_a_bf16_backbone_feeds_an_fp32_head(name: str, pooling: str, classifier: Load) -> None:
    exact, half = (classifier(name, pooling=pooling, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    ids = torch.randint(5, 200, (4, 12), generator=torch.Generator().manual_seed(0))
    logits = half(input_ids=ids).logits
    assert logits.dtype == torch.float32
    assert {p.dtype for n, p in half.named_parameters() if n.split(".")[0] not in head_names(half)} == {torch.bfloat16}
    torch.testing.assert_close(logits, exact(input_ids=ids).logits, atol=0.05, rtol=0.1)


def test_no_path_stays_on_the_model(checkpoint: Callable[..., ModelSource], classifier: Load, tmp_path: Path) -> None:
    source = checkpoint(BertConfig(**TINY))
    for pooling in ("mean", "first"):
        model = classifier(source, pooling=pooling, pad_token_id=0)
        model.save_pretrained(tmp_path / pooling)
        assert model.name_or_path == "tiny-bert"
        assert str(tmp_path) not in (tmp_path / pooling / "config.json").read_text()


def test_a_decoder_head_takes_the_last_real_token(classifier: Load) -> None:
    model = classifier("qwen3_tiny")
    pad = model.config.pad_token_id
    ids = torch.tensor([[10, 11, 12, pad, pad]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    with torch.no_grad():
        hidden = model.model(input_ids=ids[:, :3]).last_hidden_state[:, -1]
        torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, hidden @ model.score.weight.T)


def test_generators_write_and_encoders_do_not() -> None:
    settings: dict[str, Any] = {"quantization": None, "device_map": None, "attn_implementation": None}
    source = resolve_source(path="twin:gemma3_tiny")
    tokenizer = load_tokenizer(source, padding_side="left")
    model = load_generator(source, dtype=torch.float32, pad_token_id=tokenizer.pad_token_id, **settings)
    written = model.generate(**tokenizer("hello", return_tensors="pt"), max_new_tokens=3, do_sample=False)
    assert written.shape[1] > 2 and model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert model.name_or_path == "twin:gemma3_tiny"
    with pytest.raises(UserError, match="task=label_generation needs a decoder"):
        load_generator(resolve_source(path="twin:roberta_tiny"), dtype=torch.float32, pad_token_id=1, **settings)


def test_pooling_that_does_not_fit_is_refused(classifier: Load) -> None:
    with pytest.raises(UserError, match="model.pooling=last needs a decoder"):
        classifier("roberta_tiny", pooling="last")
    with pytest.raises(UserError, match="model.pooling=first needs an encoder"):
        classifier("gemma3_tiny", pooling="first")


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_checkpoint_with_a_hole_is_refused(
    pooling: str, checkpoint: Callable[..., ModelSource], classifier: Load
) -> None:
    source = checkpoint(RobertaConfig(**TINY))
    weights = Path(source.location) / "model.safetensors"
    state = load_file(weights)
    del state["encoder.layer.0.output.dense.weight"]
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="no weights for 1 parameters of the backbone"):
        classifier(source, pooling=pooling, pad_token_id=1)


def test_a_pooler_that_was_never_trained_is_refused(checkpoint: Callable[..., ModelSource], classifier: Load) -> None:
    source = checkpoint(BertConfig(**TINY), add_pooling_layer=False)
    with pytest.raises(UserError, match="take model.pooling=mean"):
        classifier(source, pooling="first", pad_token_id=0)
    classifier(source, pooling="mean", pad_token_id=0)


def test_a_checkpoints_own_head_is_kept_only_for_the_same_labels(
    checkpoint: Callable[..., ModelSource], classifier: Load, caplog: pytest.LogCaptureFixture
) -> None:
    config = RobertaConfig(**TINY, id2label=dict(enumerate(LABELS)), label2id={n: i for i, n in enumerate(LABELS)})
    source = checkpoint(config, AutoModelForSequenceClassification)
    stored = load_file(Path(source.location) / "model.safetensors")
    with caplog.at_level(logging.WARNING, "emotion_sweeps"):
        same = head_state(classifier(source, pad_token_id=1))
    assert "the head starts from the checkpoint's" in caplog.text
    assert all(torch.equal(value, stored[name]) for name, value in same.items())
    for labels in (["joy", "anger", "sadness"], ["a", "b", "c", "d", "e"]):
        other = head_state(classifier(source, label_names=labels, pad_token_id=1))
        assert torch.equal(other["classifier.dense.weight"], stored["classifier.dense.weight"])
        assert not torch.equal(other["classifier.out_proj.weight"][:3], stored["classifier.out_proj.weight"])
        assert len(other["classifier.out_proj.weight"]) == len(labels)


def test_an_architecture_without_fused_attention_loads(
    checkpoint: Callable[..., ModelSource], classifier: Load
) -> None:
    config = AutoConfig.for_model("deberta-v2", **TINY, pooler_hidden_size=32)
    model = classifier(checkpoint(config), pooling="first", attn_implementation="sdpa", pad_token_id=0)
    assert head_names(model) == ["pooler", "classifier"]
    assert model(input_ids=torch.tensor([[5, 6]])).logits.shape == (1, 3)


def test_a_model_with_nested_configs_loads(checkpoint: Callable[..., ModelSource], classifier: Load) -> None:
    text = {**TINY, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 300}
    vision = {**TINY, "image_size": 28, "patch_size": 14}
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4)
    source = checkpoint(config, AutoModelForCausalLM)
    for pooling in ("last", "mean"):
        model = classifier(source, pooling=pooling, pad_token_id=7)
        assert model.config.get_text_config().pad_token_id == 7
        assert model(input_ids=torch.tensor([[5, 6, 9]])).logits.shape == (1, 3)
