"""The mean-pooled classifier: the formula, fp32 throughout, gradients under checkpointing, its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel

from emotion_sweeps.models.pooled import PooledClassifier, PooledConfig, mean_pool
from emotion_sweeps.models.sources import ModelSource

Load = Callable[..., PreTrainedModel]
IDS = torch.randint(5, 200, (3, 9), generator=torch.Generator().manual_seed(1))
MASK = torch.tensor([[1] * 9, [1] * 4 + [0] * 5, [1] + [0] * 8])


def test_the_mean_is_over_real_tokens_only() -> None:
    hidden = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([hidden[row, : int(MASK[row].sum())].mean(dim=0) for row in range(3)])
    torch.testing.assert_close(mean_pool(hidden, MASK), expected)
    torch.testing.assert_close(mean_pool(hidden, None), hidden.mean(dim=1))
    assert mean_pool(hidden.bfloat16(), MASK).dtype == torch.float32
    assert mean_pool(hidden.double(), MASK).dtype == torch.float64


def test_a_row_without_tokens_is_finite() -> None:
    assert mean_pool(torch.ones(1, 3, 2), torch.zeros(1, 3)).tolist() == [[0.0, 0.0]]


@torch.no_grad()
def test_logits_are_the_head_on_the_mean(classifier: Load) -> None:
    model = classifier("roberta_tiny", pooling="mean")
    hidden = model.backbone(input_ids=IDS, attention_mask=MASK).last_hidden_state
    pooled = torch.stack([hidden[row, : int(MASK[row].sum())].mean(dim=0) for row in range(3)])
    expected = torch.nn.functional.linear(pooled, model.classifier.weight, model.classifier.bias)
    out = model(input_ids=IDS, attention_mask=MASK, labels=torch.ones(3, 3))
    torch.testing.assert_close(out.logits, expected)
    assert out.loss is None
    assert torch.equal(model(input_ids=IDS, attention_mask=MASK, return_dict=False)[0], out.logits)


@torch.no_grad()
def test_autocast_leaves_pooling_and_head_in_fp32(classifier: Load) -> None:
    model = classifier("gemma3_tiny", pooling="mean")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.backbone(input_ids=IDS, attention_mask=MASK).last_hidden_state
        logits = model(input_ids=IDS, attention_mask=MASK).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, model.classifier(mean_pool(hidden, MASK)))


@torch.no_grad()
def test_double_precision_runs_through(classifier: Load) -> None:
    model = classifier("qwen3_tiny", pooling="mean").double()
    assert model(input_ids=IDS, attention_mask=MASK).logits.dtype == torch.float64


def test_there_is_no_pooler_to_train_by_mistake(classifier: Load, checkpoint: Callable[..., ModelSource]) -> None:
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50)
    model = classifier(checkpoint(config), pooling="mean", pad_token_id=0)
    assert not [name for name, _ in model.named_parameters() if "pooler" in name]


@pytest.mark.parametrize("name", ["roberta_tiny", "qwen3_tiny"])
def test_gradient_checkpointing_gives_the_same_gradients(name: str, classifier: Load) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = classifier(name, pooling="mean", seed=1).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointed:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
            assert model.is_activation_checkpointing
        model(input_ids=IDS, attention_mask=MASK).logits.square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and "classifier.weight" in gradients[0]
    for key, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][key])


@pytest.mark.parametrize("name", ["roberta_tiny", "gemma3_tiny"])
@torch.no_grad()
def test_its_folder_loads_by_name_and_through_the_auto_class(name: str, classifier: Load, tmp_path: Path) -> None:
    model = classifier(name, pooling="mean")
    model.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    expected = model(input_ids=IDS, attention_mask=MASK).logits
    for loaded in (
        PooledClassifier.from_pretrained(tmp_path),
        AutoModelForSequenceClassification.from_pretrained(tmp_path),
    ):
        assert isinstance(loaded, PooledClassifier) and isinstance(loaded.config, PooledConfig)
        assert loaded.config.pooling == "mean" and loaded.config.id2label[0] == "anger"
        torch.testing.assert_close(loaded(input_ids=IDS, attention_mask=MASK).logits, expected)


def test_a_half_precision_reload_keeps_the_head_in_fp32(classifier: Load, tmp_path: Path) -> None:
    classifier("roberta_tiny", pooling="mean").save_pretrained(tmp_path)
    loaded = PooledClassifier.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.classifier.weight.dtype == torch.float32
    assert loaded.backbone.get_input_embeddings().weight.dtype == torch.bfloat16


def test_embeddings_are_the_backbones(classifier: Load) -> None:
    model = classifier("roberta_tiny", pooling="mean")
    assert model.get_input_embeddings() is model.backbone.embeddings.word_embeddings
    assert model.get_output_embeddings() is None
