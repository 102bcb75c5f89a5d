"""Greedy decoding of answers in batches: prompts of like length together, padded on the left, cache on.

With a trie of the valid answers, every step chooses among the tokens that may follow (transformers'
`prefix_allowed_tokens_fn`), so nothing else can be written; without one an answer is whatever the model says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from emotion_sweeps.data.answers import AnswerTrie
from emotion_sweeps.data.batches import plan_evaluation
from emotion_sweeps.data.tokens import pad_batch

ANSWER_SLACK = 4  # tokens beyond the longest rendered answer, so that a wrong one shows itself


def terminators(answer_ids: Sequence[Sequence[int]], eos_token_id: int | None) -> list[int]:
    """The token ids that end an answer: the tokenizer's own, and the one that all rendered answers end
    with."""
    last = {answer[-1] for answer in answer_ids}
    ends = last if len(last) == 1 else set()
    return sorted(ends | ({eos_token_id} if eos_token_id is not None else set()))


def generate_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[list[int]],
    *,
    batch_size: int,
    max_new_tokens: int,
    end_ids: list[int],
    device: torch.device,
    copies: int = 1,
    trie: AnswerTrie | None = None,
) -> list[str]:
    """The decoded answers, special tokens left out, in the order of the prompts; the caller sets eval mode.

    Args:
        trie: the valid answers; it then decides the end token and the number of new tokens too.
        copies: of every batch, one behind the other (a pack's trials); all answers of the first come first.
    """
    config = GenerationConfig(
        max_new_tokens=max_new_tokens if trie is None else trie.longest,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=end_ids if trie is None else trie.end_id,
    )
    answers = [[""] * len(prompt_ids) for _ in range(copies)]
    with torch.inference_mode():
        for batch in plan_evaluation([len(row) for row in prompt_ids], batch_size):
            if trie is not None:
                trie.trim()
            ids, mask = pad_batch([prompt_ids[row] for row in batch], int(tokenizer.pad_token_id), "left")
            produced = model.generate(
                input_ids=torch.from_numpy(ids).to(device).repeat(copies, 1),
                attention_mask=torch.from_numpy(mask).to(device).repeat(copies, 1),
                generation_config=config,
                prefix_allowed_tokens_fn=None if trie is None else _allowed(trie, ids.shape[1], config.pad_token_id),
            )
            new = produced[:, ids.shape[1] :].cpu().tolist()
            for position, tokens in enumerate(new):
                copy, row = divmod(position, len(batch))
                answers[copy][batch[row]] = str(tokenizer.decode(tokens, skip_special_tokens=True))
    return [answer for own in answers for answer in own]


def _allowed(trie: AnswerTrie, prompt_width: int, pad_id: int) -> Callable[[int, Tensor], list[int]]:
    """What may follow a row's answer so far; padding where it has ended and others go on."""

    def allowed(row: int, ids: Tensor) -> list[int]:
        answer = ids[prompt_width:].tolist()
        if trie.end_id in answer:
            return [pad_id]
        return trie.allowed(answer)

    return allowed
