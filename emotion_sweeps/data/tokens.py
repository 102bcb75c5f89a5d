"""Texts into token ids, and rows of ids into padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int) -> list[list[int]]:
    """Token ids with special tokens, cut to `max_length`.

    A text that gives no token at all (an empty one, where the tokenizer adds no special tokens) becomes one
    end-of-text token, because a model cannot attend to a row without any.
    """
    if not texts:
        return []
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
    filler = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id
    return [list(row) or [int(filler or 0)] for row in encoded["input_ids"]]


def pad_batch(
    rows: Sequence[Sequence[int]], pad_id: int, side: Literal["right", "left"] = "right"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pad rows to the longest of them.

    Returns:
        input_ids and attention_mask, both `(batch, seq)`.
    """
    if side not in ("right", "left"):
        raise ValueError(f"side must be 'right' or 'left', got {side!r}")
    width = max((len(row) for row in rows), default=0)
    input_ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(rows), width), dtype=np.int64)
    for position, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        input_ids[position, place] = row
        attention_mask[position, place] = 1
    return input_ids, attention_mask
