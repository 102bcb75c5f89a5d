"""Label generation through trl's SFTTrainer: completion-only loss on our batches, decoding scored as labels.

Rows come tokenised and complete, so trl prepares, truncates and packs nothing (it would cut the end of an
answer and drop rows whose answer is gone). The loss is the mean over the answer tokens of the global batch.
Logits are computed from the first answer position of the micro-batch on (`logits_to_keep`): with a vocabulary
of 262k the rest would be most of the memory. trl casts adapters on a quantised base to bf16; the `after_init`
hook puts fp32 back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from trl import SFTTrainer

from emotion_sweeps.data.batches import plan_evaluation
from emotion_sweeps.data.tokens import pad_batch
from emotion_sweeps.training.decoding import ANSWER_SLACK, generate_answers, terminators
from emotion_sweeps.training.engine import PlannedTrainer
from emotion_sweeps.training.loader import Entry
from emotion_sweeps.training.losses import IGNORE, token_hits, token_losses
from emotion_sweeps.training.metrics import label_metrics
from emotion_sweeps.training.rows import PromptRows
from emotion_sweeps.training.sequence_packing import document_losses, packed_answers

ParseAnswer = Callable[[str], tuple[np.ndarray, bool]]


@dataclass(frozen=True)
class Decoded:
    """Decoded answers and what they say: `labels` `(num_examples, num_labels)` uint8, `valid` one flag a
    row."""

    texts: list[str]
    labels: np.ndarray
    valid: list[bool]


def parse_answers(texts: Sequence[str], parse: ParseAnswer) -> Decoded:
    """Every answer read as labels."""
    parsed = [parse(text) for text in texts]
    return Decoded(list(texts), np.stack([row for row, _ in parsed]), [valid for _, valid in parsed])


def answer_metrics(decoded: Decoded, labels: np.ndarray) -> dict[str, float]:
    """Label metrics of decoded answers, and the share that could not be read as labels.

    An answer that could not be read is never right, not even on a text without labels, which its empty row matches.
    """
    valid = np.asarray(decoded.valid, dtype=bool)
    lucky = ~valid & ~decoded.labels.any(axis=1) & ~labels.any(axis=1)
    metrics, share = label_metrics(decoded.labels, labels), float(lucky.mean())
    counted = {name: metrics[name] - share for name in ("accuracy", "jaccard")}
    return {**metrics, **counted, "invalid_answers": 1.0 - float(valid.mean())}


def padded_answers(rows: PromptRows, chosen: Sequence[int], pad_id: int) -> dict[str, Any]:
    """Inputs, and the targets of the positions from the first answer token of these rows on."""
    prompts = [rows.prompt_ids[row] for row in chosen]
    whole = [[*prompt, *rows.answer_ids[row]] for prompt, row in zip(prompts, chosen, strict=True)]
    input_ids, attention_mask = pad_batch(whole, pad_id)
    targets = np.where(attention_mask == 1, input_ids, IGNORE)
    for position, prompt in enumerate(prompts):
        targets[position, : len(prompt)] = IGNORE
    first = min(len(prompt) for prompt in prompts)
    tensors: dict[str, Tensor] = {
        "input_ids": torch.from_numpy(input_ids),
        "attention_mask": torch.from_numpy(attention_mask),
        "targets": torch.from_numpy(targets[:, first:]),
    }
    return {**tensors, "logits_to_keep": input_ids.shape[1] - first + 1}


class GenerationTrainer(PlannedTrainer, SFTTrainer):  # type: ignore[misc]
    """Trains a causal language model to write the labels of a text."""

    def attach(
        self,
        train: PromptRows,
        validation: PromptRows,
        *,
        tokenizer: Any,
        parse: ParseAnswer,
        label_smoothing: float,
        eval_batch_size: int,
        sequence_packing: bool = False,
    ) -> None:
        """Take the rows and how to read answers; called once after construction."""
        self.sequence_packing = sequence_packing
        self.train_rows, self.validation_rows = train, validation
        self.tokenizer, self.parse = tokenizer, parse
        self.label_smoothing, self.eval_batch_size = label_smoothing, eval_batch_size
        answers = [*train.answer_ids, *validation.answer_ids]
        self.max_new_tokens = max(len(answer) for answer in answers) + ANSWER_SLACK
        self.end_ids = terminators(answers, tokenizer.eos_token_id)

    def _send_telemetry(self) -> None:
        """Nothing is sent."""

    def collate(self, entries: list[Entry]) -> dict[str, Any]:
        """Prompt and answer, padded on the right or packed, the answer's tokens as targets, and shares."""
        rows = [row for row, _ in entries]
        inputs = packed_answers(self.train_rows, rows) if self.sequence_packing else self._padded(self.train_rows, rows)
        return {**inputs, "share": torch.tensor([share for _, share in entries], dtype=torch.float32)}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This micro-batch's part of the mean over the answer tokens of the global batch."""
        targets, share, document = inputs.pop("targets"), inputs.pop("share"), inputs.pop("document", None)
        outputs = model(**inputs, use_cache=False)
        if document is None:
            losses = token_losses(outputs.logits[:, :-1], targets, label_smoothing=self.label_smoothing)
        else:
            smoothing = self.label_smoothing
            losses = document_losses(outputs.logits, targets, document, len(share), label_smoothing=smoothing)
        loss = (losses * share).sum()
        return (loss, outputs) if return_outputs else loss

    def score_tokens(self, rows: PromptRows) -> dict[str, float]:
        """Mean NLL and accuracy over the answer tokens, unsmoothed."""
        self.model.eval()
        lengths = [len(p) + len(a) for p, a in zip(rows.prompt_ids, rows.answer_ids, strict=True)]
        nll = torch.zeros((), dtype=torch.float64, device=self.args.device)
        hits = torch.zeros((), dtype=torch.long, device=self.args.device)
        with torch.inference_mode(), self.autocast():
            for batch in plan_evaluation(lengths, self.eval_batch_size):
                inputs = self._prepare_inputs(self._padded(rows, batch))
                targets = inputs.pop("targets")
                logits = self.model(**inputs, use_cache=False).logits[:, :-1]
                nll += token_losses(logits, targets).sum().double()
                hits += token_hits(logits, targets).sum()
        count = sum(len(answer) for answer in rows.answer_ids)
        return {"loss": float(nll) / count, "token_accuracy": float(hits) / count}

    def decode(self, rows: PromptRows) -> Decoded:
        """What the model answers to every prompt."""
        self.model.eval()
        with self.autocast():
            texts = generate_answers(
                self.model,
                self.tokenizer,
                rows.prompt_ids,
                batch_size=self.eval_batch_size,
                max_new_tokens=self.max_new_tokens,
                end_ids=self.end_ids,
                device=self.args.device,
                trie=rows.trie,
            )
        return parse_answers(texts, self.parse)

    def evaluate_rows(self, rows: PromptRows) -> tuple[dict[str, float], Decoded]:
        """Token metrics and label metrics of one split, and the decoded answers."""
        decoded = self.decode(rows)
        return {**self.score_tokens(rows), **answer_metrics(decoded, rows.labels)}, decoded

    def evaluate_validation(self) -> tuple[dict[str, float], Decoded]:
        """The metrics of the validation part, and its decoded answers."""
        return self.evaluate_rows(self.validation_rows)

    def _padded(self, rows: PromptRows, chosen: Sequence[int]) -> dict[str, Any]:
        return padded_answers(rows, chosen, int(self.tokenizer.pad_token_id))
