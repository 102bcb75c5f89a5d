"""Label generation in a pack: token losses a trial, teacher-forced scores and greedy decoding for all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from emotion_sweeps.data.batches import plan_evaluation
from emotion_sweeps.lora.packed_model import PackedModel
from emotion_sweeps.training.decoding import ANSWER_SLACK, generate_answers, terminators
from emotion_sweeps.training.generation_trainer import (
    Decoded,
    ParseAnswer,
    answer_metrics,
    padded_answers,
    parse_answers,
)
from emotion_sweeps.training.loader import Entry
from emotion_sweeps.training.losses import token_hits, token_losses
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.packed.finish import generation_outcomes
from emotion_sweeps.training.packed.head_task import Autocast, filled, shares_of
from emotion_sweeps.training.packed.trial import PackBatch, PackTrial, Slot
from emotion_sweeps.training.rows import PromptRows


class GenerationTask:
    """Rows, losses and evaluation of label generation; everything here is shared by the trials of a pack."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        train: PromptRows,
        validation: PromptRows,
        test: PromptRows | None,
        *,
        label_names: Sequence[str],
        parse: ParseAnswer,
        label_smoothing: float,
        eval_batch_size: int,
    ) -> None:
        self.tokenizer, self.parse, self.label_names = tokenizer, parse, label_names
        self.train, self.validation, self.test = train, validation, test
        self.label_smoothing, self.eval_batch_size = label_smoothing, eval_batch_size
        self.lengths = [len(p) + len(a) for p, a in zip(train.prompt_ids, train.answer_ids, strict=True)]
        self.units = [len(answer) for answer in train.answer_ids]
        answers = [*train.answer_ids, *validation.answer_ids]
        self.max_new_tokens = max(len(answer) for answer in answers) + ANSWER_SLACK
        self.end_ids = terminators(answers, tokenizer.eos_token_id)
        self.pad_id = int(tokenizer.pad_token_id)

    # training

    def collate(self, parts: Sequence[Sequence[Entry]], device: torch.device) -> PackBatch:
        """One forward pass over everybody's prompts and answers."""
        widths = [max(self.lengths[row] for row, _ in part) for part in parts]
        full, num_rows = filled(parts)
        rows = [[row for row, _ in part] for part in full]
        same = all(own == rows[0] for own in rows)
        inputs = padded_answers(self.train, rows[0] if same else [r for own in rows for r in own], self.pad_id)
        inputs = _moved(inputs, device, len(parts) if same else 1)
        targets = inputs.pop("targets")
        return PackBatch(inputs, targets, shares_of(full).to(device, non_blocking=True), num_rows, widths)

    def losses(self, model: Any, batch: PackBatch, trials: Sequence[PackTrial]) -> Tensor:
        """`(num_trials,)`: each trial's part of its own mean over the answer tokens of the global batch."""
        logits = model(**batch.inputs, use_cache=False).logits[:, :-1]
        losses = token_losses(logits, batch.targets, label_smoothing=self.label_smoothing)
        return (losses.view(len(trials), -1) * batch.share.to(losses.dtype)).sum(1)

    # evaluation

    def _score_tokens(
        self, pack: PackedModel, autocast: Autocast, slots: list[int], rows: PromptRows, size: int
    ) -> list[dict[str, float]]:
        """Mean NLL and accuracy over the answer tokens, unsmoothed, of each slot."""
        n = len(slots)
        lengths = [len(p) + len(a) for p, a in zip(rows.prompt_ids, rows.answer_ids, strict=True)]
        nll = torch.zeros(n, dtype=torch.float64, device=pack.device)
        hits = torch.zeros(n, dtype=torch.long, device=pack.device)
        with torch.inference_mode(), autocast(), pack.using(slots) as model:
            for batch in plan_evaluation(lengths, size):
                inputs = _moved(padded_answers(rows, batch, self.pad_id), pack.device, n)
                targets = inputs.pop("targets")
                logits = model(**inputs, use_cache=False).logits[:, :-1]
                nll += token_losses(logits, targets).view(n, -1).sum(1).double()
                hits += token_hits(logits, targets).view(n, -1).sum(1)
        count = sum(len(answer) for answer in rows.answer_ids)
        return [
            {"loss": loss / count, "token_accuracy": met / count}
            for loss, met in zip(nll.tolist(), hits.tolist(), strict=True)
        ]

    def decode(
        self, pack: PackedModel, autocast: Autocast, slots: list[int], rows: PromptRows, max_rows: int
    ) -> list[Decoded]:
        """What each slot answers to every prompt."""
        pack.module.eval()
        with autocast(), pack.using(slots) as model:
            texts = generate_answers(
                model,
                self.tokenizer,
                rows.prompt_ids,
                batch_size=self._size(slots, max_rows),
                max_new_tokens=self.max_new_tokens,
                end_ids=self.end_ids,
                device=pack.device,
                copies=len(slots),
                trie=rows.trie,
            )
        count = len(rows)
        return [parse_answers(texts[i * count : (i + 1) * count], self.parse) for i in range(len(slots))]

    def score(
        self, pack: PackedModel, autocast: Autocast, slots: list[int], rows: PromptRows, max_rows: int
    ) -> list[tuple[dict[str, float], Decoded]]:
        """Token metrics and label metrics of one split, and the decoded answers, of each slot."""
        decoded = self.decode(pack, autocast, slots, rows, max_rows)
        tokens = self._score_tokens(pack, autocast, slots, rows, self._size(slots, max_rows))
        return [
            ({**own, **answer_metrics(answers, rows.labels)}, answers)
            for own, answers in zip(tokens, decoded, strict=True)
        ]

    def evaluate(
        self, pack: PackedModel, autocast: Autocast, slots: list[int], max_rows: int
    ) -> list[tuple[dict[str, float], Any]]:
        """The metrics of the validation part and its decoded answers, of each slot."""
        return [*self.score(pack, autocast, slots, self.validation, max_rows)]

    def outcomes(
        self, pack: PackedModel, autocast: Autocast, ended: dict[int, Slot], max_rows: int
    ) -> dict[int, Outcome]:
        """The outcomes of trials whose kept weights are in their slots."""
        return generation_outcomes(self, pack, autocast, ended, max_rows)

    def _size(self, slots: list[int], max_rows: int) -> int:
        # A vocabulary of 262k makes logits large: as many rows at once as the solo engine, shared by the trials.
        return max(1, min(self.eval_batch_size, max_rows) // len(slots))


def _moved(inputs: dict[str, Any], device: torch.device, copies: int) -> dict[str, Any]:
    return {
        name: value.to(device, non_blocking=True).repeat(copies, 1) if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }
