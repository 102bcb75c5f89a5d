"""What the engine trains and scores: token rows with their ids and labels, for heads and for generation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emotion_sweeps.data.answers import AnswerTrie


@dataclass(frozen=True)
class TextRows:
    """Texts for a class head.

    `input_ids` are token ids with special tokens, unpadded; `labels` `(num_examples, num_labels)` uint8
    multi-hot.
    """

    ids: list[str]
    input_ids: list[list[int]]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class PromptRows:
    """Prompts and answers for label generation; the loss counts the answer's tokens, its terminator
    included. With a `trie` nothing but its answers can be decoded."""

    ids: list[str]
    prompt_ids: list[list[int]]
    answer_ids: list[list[int]]
    labels: np.ndarray
    trie: AnswerTrie | None = None

    def __len__(self) -> int:
        return len(self.ids)
