"""Sequence packing: the rows of a micro-batch behind each other in one row, without padding, each document by itself.

Positions restart with every document; where no attention mask and no cache is given, transformers builds the
block-diagonal causal mask from them (sliding windows included), and flash attention its segment bounds. Logits are
computed at the answers' positions alone. The mask grows with the square of the micro-batch's tokens. Losses are those
of the padded rows; it is for training alone, never for evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emotion_sweeps.training.losses import token_losses
from emotion_sweeps.training.rows import PromptRows


def packed_answers(rows: PromptRows, chosen: Sequence[int]) -> dict[str, Any]:
    """Inputs of one packed row, and for each supervised token its target and its document.

    Returns:
        `input_ids` and `position_ids` `(1, tokens)`, `logits_to_keep` (positions), `targets` and `document`, all three
        `(answer tokens,)`.
    """
    ids, positions, kept, targets, document = list[int](), list[int](), list[int](), list[int](), list[int]()
    for index, row in enumerate(chosen):
        prompt, answer = rows.prompt_ids[row], rows.answer_ids[row]
        begin = len(ids) + len(prompt) - 1  # the position that scores the first answer token
        ids += [*prompt, *answer]
        positions += range(len(prompt) + len(answer))
        kept += range(begin, begin + len(answer))
        targets += answer
        document += [index] * len(answer)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "logits_to_keep": torch.from_numpy(np.asarray(kept, np.int64)),
        "targets": torch.tensor(targets),
        "document": torch.tensor(document),
    }


def document_losses(
    logits: Tensor, targets: Tensor, document: Tensor, num_documents: int, *, label_smoothing: float = 0.0
) -> Tensor:
    """Sum of the token losses of each document, `(num_documents,)`.

    Args:
        logits: `(1, answer tokens, vocab)`.
    """
    losses = token_losses(logits[0, :, None], targets[:, None], label_smoothing=label_smoothing)
    return losses.new_zeros(num_documents).index_add(0, document, losses)
