"""Token ids and padded batches."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from emotion_sweeps.data.tokens import encode_texts, pad_batch

Tokenizers = dict[str, PreTrainedTokenizerFast]
TEXTS = ["joy", "Classify the emotion", "", "😀 ünïcödé", "x" * 10_000, " "]


@pytest.mark.parametrize("name", ["encoder", "plain", "qwen"])
def test_encoding_equals_text_by_text(tokenizers: Tokenizers, name: str) -> None:
    tokenizer = tokenizers[name]
    rows = encode_texts(tokenizer, TEXTS, max_length=20)
    assert len(rows) == len(TEXTS) and all(1 <= len(row) <= 20 for row in rows)
    for text, row in zip(TEXTS, rows, strict=True):
        if text:
            assert row == tokenizer(text, truncation=True, max_length=20)["input_ids"]
    assert len(rows[4]) == 20
    assert encode_texts(tokenizer, [], max_length=20) == []


def test_special_tokens_survive_the_cut(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers["encoder"]
    row = encode_texts(tokenizer, ["x" * 10_000], max_length=16)[0]
    assert row[0] == tokenizer.bos_token_id and row[-1] == tokenizer.eos_token_id


def test_empty_text_without_special_tokens_is_one_token(tokenizers: Tokenizers) -> None:
    assert encode_texts(tokenizers["qwen"], [""], max_length=8) == [[tokenizers["qwen"].eos_token_id]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_equals_the_tokenizers(tokenizers: Tokenizers, side: str) -> None:
    tokenizer = tokenizers["encoder"]
    rows = encode_texts(tokenizer, TEXTS, max_length=12)
    input_ids, attention_mask = pad_batch(rows, tokenizer.pad_token_id, side)  # type: ignore[arg-type]
    expected = tokenizer.pad({"input_ids": rows}, padding_side=side, return_tensors="np")
    np.testing.assert_array_equal(input_ids, expected["input_ids"])
    np.testing.assert_array_equal(attention_mask, expected["attention_mask"])
    assert input_ids.dtype == attention_mask.dtype == np.int64


def test_padding_edges() -> None:
    assert pad_batch([], 0)[0].shape == (0, 0)
    assert pad_batch([[], [1]], 9)[0].tolist() == [[9], [1]]
    with pytest.raises(ValueError, match="side must be 'right' or 'left', got 'up'"):
        pad_batch([[1]], 0, "up")  # type: ignore[arg-type]
