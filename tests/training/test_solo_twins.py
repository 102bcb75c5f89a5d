"""The engine on the real loaders: twins of the families, their tokenizers, prompts, adapters, bf16 and 4-bit bases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from engine_kit import Records

from emotion_sweeps.data.prompts import PromptStyle, encode_generation, parse_answer
from emotion_sweeps.data.tokens import encode_texts
from emotion_sweeps.lora.inject import add_adapter, ensure_fp32_trainable
from emotion_sweeps.models.heads import head_names
from emotion_sweeps.models.load import load_classifier, load_generator
from emotion_sweeps.models.quantization import keep_differentiable
from emotion_sweeps.models.sources import resolve_source
from emotion_sweeps.models.tokenizers import load_tokenizer
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.rows import PromptRows, TextRows
from emotion_sweeps.training.solo import train_generation, train_head

LABEL_NAMES = ["anger", "joy", "fear", "sadness"]
WORDS = "the day was long but my friend came and we sang about rain work trains dogs coffee songs letters snow".split()


def texts(count: int) -> tuple[list[str], np.ndarray]:
    """Distinct texts with random labels: nothing but the text itself tells them."""
    rng = np.random.default_rng(0)
    labels = (rng.random((count, 4)) < 0.4).astype(np.uint8)
    return [f"{i} " + " ".join(rng.choice(WORDS, rng.integers(5, 10))) for i in range(count)], labels


def adapted(model: Any, task_type: str, r: int) -> Any:
    options = {"use_rslora": False, "use_dora": False, "bias": "none", "modules_to_save": []}
    return add_adapter(
        model,
        r=r,
        alpha=2 * r,
        dropout=0.0,
        target_modules="all-linear",
        task_type=task_type,
        base_reference="twin",
        seed=0,
        **options,
    )


def head_trial(twin: str, count: int, quantization: Any = None, **settings: Any) -> Outcome:
    source = resolve_source(path="unused", twin=twin)
    tokenizer = load_tokenizer(source, padding_side="right")
    dtype = torch.bfloat16 if settings["precision"] == "bf16" else torch.float32
    model = load_classifier(
        source,
        label_names=LABEL_NAMES,
        multilabel=True,
        pooling="auto",
        dtype=dtype,
        quantization=quantization,
        device_map=None,
        attn_implementation="sdpa",
        pad_token_id=tokenizer.pad_token_id,
        seed=0,
    )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):  # RoBERTa's own, which only makes learning by heart take longer
            module.p = 0.0
    model = adapted(model, "SEQ_CLS", 16)
    corpus, labels = texts(count)
    rows = TextRows([str(i) for i in range(count)], encode_texts(tokenizer, corpus, max_length=64), labels)
    return train_head(
        model,
        rows,
        rows,
        label_names=LABEL_NAMES,
        multilabel=True,
        head_modules=head_names(model),
        head_learning_rate=1e-2,
        pad_id=tokenizer.pad_token_id,
        **settings,
    )


def generation_trial(twin: str, count: int, quantization: Any = None, **settings: Any) -> tuple[Any, Outcome]:
    source = resolve_source(path="unused", twin=twin)
    tokenizer = load_tokenizer(source, padding_side="left")
    dtype = torch.bfloat16 if settings["precision"] == "bf16" else torch.float32
    model = load_generator(
        source,
        dtype=dtype,
        quantization=quantization,
        device_map=None,
        attn_implementation="sdpa",
        pad_token_id=tokenizer.pad_token_id,
    )
    model = adapted(model, "CAUSAL_LM", 16)
    corpus, labels = texts(count)
    style = PromptStyle(instruction="Labels: {labels}")
    encoded = encode_generation(tokenizer, style, corpus, labels, LABEL_NAMES, 160)
    rows = PromptRows([str(i) for i in range(count)], encoded.prompt_ids, encoded.answer_ids, labels)
    outcome = train_generation(
        model,
        tokenizer,
        rows,
        rows,
        rows,
        label_names=LABEL_NAMES,
        parse=partial(_parse, style),
        after_init=ensure_fp32_trainable,
        **settings,
    )
    return model, outcome


def _parse(style: PromptStyle, text: str) -> tuple[np.ndarray, bool]:
    return parse_answer(style, text, LABEL_NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["roberta_tiny", "qwen3_tiny", "gemma3_tiny"])
def test_a_head_learns_thirty_two_texts_by_heart(twin: str, settings: Callable[..., dict[str, Any]]) -> None:
    options = settings(epochs=60, learning_rate=3e-3, evals_per_epoch=0.1, weight_decay=0.0, log_every=100)
    outcome = head_trial(twin, 32, **options)
    assert outcome.kept["metrics"]["loss"] < 0.02
    assert outcome.kept["metrics"]["accuracy"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["qwen3_tiny", "gemma3_tiny"])
def test_generation_learns_thirty_two_texts_by_heart(twin: str, settings: Callable[..., dict[str, Any]]) -> None:
    options = settings(epochs=50, learning_rate=5e-3, evals_per_epoch=0.04, weight_decay=0.0, log_every=100)
    _, outcome = generation_trial(twin, 32, **options)
    metrics = outcome.kept["metrics"]
    assert metrics["loss"] < 0.05
    assert metrics["macro_f1"] == 1.0 and metrics["invalid_answers"] == 0.0
    assert outcome.test_metrics is not None and outcome.test_metrics["accuracy"] == 1.0


@pytest.mark.parametrize("kind", ["head", "generation"])
def test_a_bf16_base_trains_fp32_adapters(kind: str, settings: Callable[..., dict[str, Any]]) -> None:
    options = settings(precision="bf16", max_steps=3)
    if kind == "head":
        outcome = head_trial("roberta_tiny", 16, **options)
    else:
        model, outcome = generation_trial("qwen3_tiny", 16, **options)
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert np.isfinite(outcome.kept["metrics"]["loss"])


@pytest.mark.parametrize("kind", ["head", "generation"])
def test_a_4bit_base_learns_the_same_however_often_it_is_evaluated(
    kind: str, settings: Callable[..., dict[str, Any]], records: Records
) -> None:
    """bitsandbytes' CPU layers lose their gradient at the first evaluation; trl casts adapters to bf16 at set-up."""
    from transformers import BitsAndBytesConfig

    losses = []
    for evals_per_epoch in (0.25, 2):
        records.all.clear()
        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        options = settings(epochs=4, evals_per_epoch=evals_per_epoch, learning_rate=1e-3)
        if kind == "head":
            outcome = head_trial("roberta_tiny", 16, quantization, **options)
        else:
            model, outcome = generation_trial("qwen3_tiny", 16, quantization, **options)
            assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        losses.append([r["loss"] for r in records.of("train")])
        assert len(outcome.evaluations) == 4 * evals_per_epoch
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_a_4bit_base_keeps_its_gradient_and_its_logits_through_an_evaluation() -> None:
    from transformers import BitsAndBytesConfig

    source = resolve_source(path="unused", twin="qwen3_tiny")
    options: dict[str, Any] = {"device_map": None, "attn_implementation": "sdpa", "pad_token_id": 0}
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = load_generator(source, dtype=torch.float32, quantization=quantization, **options)
    keep_differentiable(model)
    embeddings = model.get_input_embeddings()(torch.arange(5, 15)[None]).detach().requires_grad_()
    output = model(inputs_embeds=embeddings).logits
    with torch.inference_mode():
        evaluated = model(inputs_embeds=embeddings.detach()).logits
    torch.testing.assert_close(evaluated, output, rtol=1e-5, atol=1e-5)
    gradients = []
    for _ in range(2):
        embeddings.grad = None
        model(inputs_embeds=embeddings).logits.sum().backward()
        assert embeddings.grad is not None
        gradients.append(embeddings.grad.clone())
        with torch.inference_mode():
            model(inputs_embeds=embeddings.detach())
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().sum() > 0
