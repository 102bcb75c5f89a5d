"""Packed documents are isolated: each one's loss and gradient are those of the document alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from emotion_sweeps.models.load import load_generator
from emotion_sweeps.models.sources import resolve_source
from emotion_sweeps.models.tokenizers import load_tokenizer
from emotion_sweeps.training.generation_trainer import padded_answers
from emotion_sweeps.training.losses import token_losses
from emotion_sweeps.training.rows import PromptRows
from emotion_sweeps.training.sequence_packing import document_losses, packed_answers
from emotion_sweeps.training.solo import train_generation

Make = Callable[..., Any]


def rows_of(lengths: list[int], vocab: int = 60, seed: int = 0) -> PromptRows:
    """Prompts of the given lengths and answers of one to four tokens."""
    rng = np.random.default_rng(seed)
    prompts = [[int(t) for t in rng.integers(5, vocab, length)] for length in lengths]
    answers = [[*map(int, rng.integers(5, vocab, 1 + i % 4)), 2] for i in range(len(lengths))]
    return PromptRows([str(i) for i in range(len(lengths))], prompts, answers, np.zeros((len(lengths), 3), np.uint8))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("twin", ["qwen3_tiny", "gemma3_tiny"])
def test_each_documents_loss_is_its_own(twin: str, attention: str) -> None:
    """One document is longer than Gemma's sliding window, one has a prompt of a single token."""
    source = resolve_source(path="unused", twin=twin)
    pad_id = load_tokenizer(source, padding_side="left").pad_token_id
    options: dict[str, Any] = {"quantization": None, "device_map": None, "attn_implementation": attention}
    model = load_generator(source, dtype=torch.float32, pad_token_id=pad_id, **options).eval()
    rows = rows_of([12, 1, 90, 30, 7], vocab=900)
    chosen = [3, 2, 1, 0, 4]
    inputs = packed_answers(rows, chosen)
    assert inputs["input_ids"].shape[0] == 1
    targets, document = inputs.pop("targets"), inputs.pop("document")
    with torch.no_grad():
        packed = document_losses(model(**inputs, use_cache=False).logits, targets, document, len(chosen))
        padded = padded_answers(rows, chosen, pad_id)
        wanted = padded.pop("targets")
        by_rows = token_losses(model(**padded, use_cache=False).logits[:, :-1], wanted)
        alone = []
        for row in chosen:
            prompt, answer = rows.prompt_ids[row], rows.answer_ids[row]
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            alone.append(F.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
    torch.testing.assert_close(packed, torch.stack(alone), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(packed, by_rows, rtol=1e-5, atol=1e-5)


def test_documents_would_see_each_other_without_their_positions() -> None:
    """What the test above would not notice if it could not fail."""
    source = resolve_source(path="unused", twin="qwen3_tiny")
    options: dict[str, Any] = {"quantization": None, "device_map": None, "attn_implementation": "sdpa"}
    model = load_generator(source, dtype=torch.float32, pad_token_id=0, **options).eval()
    inputs = packed_answers(rows_of([12, 9], vocab=900), [0, 1])
    targets, document = inputs.pop("targets"), inputs.pop("document")
    with torch.no_grad():
        right = document_losses(model(**inputs, use_cache=False).logits, targets, document, 2)
        inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1])[None]
        wrong = document_losses(model(**inputs, use_cache=False).logits, targets, document, 2)
    torch.testing.assert_close(right[0], wrong[0])
    assert abs(right[1] - wrong[1]) > 0.01


@pytest.mark.parametrize("changes", [{}, {"micro_batch_size": 3}, {"gradient_checkpointing": True}])
def test_a_packed_trial_is_the_padded_one(make_generator: Make, settings: Make, changes: dict[str, Any]) -> None:
    """Losses and gradient norms at every step, with accumulation and smoothing; evaluation is not packed."""
    traces = []
    for packing in (False, True):
        records: list[dict[str, Any]] = []
        outcome = train_generation(
            make_generator(seed=1),
            tokenizer_of_words(),
            rows_of([3 + i % 9 for i in range(21)]),
            rows_of([3 + i % 5 for i in range(10)], seed=1),
            label_names=["a", "b", "c"],
            parse=lambda answer: (np.zeros(3, np.uint8), False),
            label_smoothing=0.1,
            sequence_packing=packing,
            **settings(on_record=records.append, **changes),
        )
        trace = [(r["loss"], r["grad_norm"]) for r in records if r["kind"] == "train"]
        traces.append((trace, outcome.final["metrics"]["loss"]))
    np.testing.assert_allclose(traces[1][0], traces[0][0], rtol=1e-4, atol=1e-6)
    assert traces[1][1] == pytest.approx(traces[0][1], rel=1e-4)


def tokenizer_of_words() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<unk>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, 64)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )
