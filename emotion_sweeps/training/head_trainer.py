"""Class heads through transformers' Trainer: our losses on our batches, evaluation in sorted batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from emotion_sweeps.data.batches import plan_evaluation
from emotion_sweeps.data.tokens import pad_batch
from emotion_sweeps.training.engine import PlannedTrainer
from emotion_sweeps.training.evaluation import validation_metrics
from emotion_sweeps.training.loader import Entry
from emotion_sweeps.training.rows import TextRows

ExampleLosses = Callable[[Tensor, Tensor], Tensor]
Side = Literal["right", "left"]


class HeadTrainer(PlannedTrainer):
    """Trains a model whose forward gives `.logits` `(batch, num_labels)`."""

    def attach(
        self,
        train: TextRows,
        validation: TextRows,
        *,
        example_losses: ExampleLosses,
        multilabel: bool,
        tune_thresholds: bool,
        split_seed: int,
        eval_batch_size: int,
        pad_id: int,
        padding_side: Side,
    ) -> None:
        """Take the rows, the loss and how to evaluate; called once after construction.

        Args:
            example_losses: logits and labels, both `(batch, num_labels)`, to `(batch,)` losses.
            split_seed: draws the halves of cross-fitting.
        """
        self.train_rows, self.validation_rows = train, validation
        self.example_losses = example_losses
        self.multilabel, self.tune_thresholds, self.split_seed = multilabel, tune_thresholds, split_seed
        self.eval_batch_size, self.pad_id, self.padding_side = eval_batch_size, pad_id, padding_side

    def collate(self, entries: list[Entry]) -> dict[str, Any]:
        """Padded token ids, labels and shares of one micro-batch."""
        rows = [row for row, _ in entries]
        inputs = self._padded([self.train_rows.input_ids[row] for row in rows])
        return {
            **inputs,
            "targets": torch.from_numpy(self.train_rows.labels[rows].astype(np.float32)),
            "share": torch.tensor([share for _, share in entries], dtype=torch.float32),
        }

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This micro-batch's part of the mean over the global batch."""
        targets, share = inputs.pop("targets"), inputs.pop("share")
        outputs = model(**inputs)
        loss = (self.example_losses(outputs.logits, targets) * share).sum()
        return (loss, outputs) if return_outputs else loss

    def predict_logits(self, input_ids: Sequence[list[int]]) -> np.ndarray:
        """Logits `(num_examples, num_labels)` float32 in the order of the rows."""
        self.model.eval()
        plan = plan_evaluation([len(row) for row in input_ids], self.eval_batch_size)
        parts: list[Tensor] = []
        with torch.inference_mode(), self.autocast():
            for batch in plan:
                inputs = self._padded([input_ids[row] for row in batch])
                on_device = {name: tensor.to(self.args.device) for name, tensor in inputs.items()}
                parts.append(self.model(**on_device).logits.float())
        logits: np.ndarray = torch.cat(parts).cpu().numpy()
        ordered = np.empty_like(logits)
        ordered[[row for batch in plan for row in batch]] = logits
        return ordered

    def evaluate_validation(self) -> tuple[dict[str, float], np.ndarray]:
        """The metrics of the validation part, and its logits."""
        logits = self.predict_logits(self.validation_rows.input_ids)
        metrics = validation_metrics(
            logits,
            self.validation_rows.labels,
            multilabel=self.multilabel,
            tune=self.tune_thresholds,
            seed=self.split_seed,
        )
        return metrics, logits

    def _padded(self, rows: list[list[int]]) -> dict[str, Tensor]:
        input_ids, attention_mask = pad_batch(rows, self.pad_id, self.padding_side)
        return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention_mask)}
