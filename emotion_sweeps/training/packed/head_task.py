"""Class heads in a pack: one forward pass for the micro-batches of all trials, losses a trial, packed evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emotion_sweeps.data.batches import plan_evaluation
from emotion_sweeps.data.tokens import pad_batch
from emotion_sweeps.lora.packed_model import PackedModel
from emotion_sweeps.training.evaluation import validation_metrics
from emotion_sweeps.training.loader import Entry
from emotion_sweeps.training.losses import multilabel_losses, singlelabel_losses
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.packed.trial import PackBatch, PackTrial, Slot
from emotion_sweeps.training.rows import TextRows

Autocast = Callable[[], AbstractContextManager[Any]]


def filled(parts: Sequence[Sequence[Entry]]) -> tuple[list[list[Entry]], list[int]]:
    """Every trial's rows brought to the same number with filler of share 0, and how many were its own."""
    most = max(len(part) for part in parts)
    return [[*part, *[(part[0][0], 0.0)] * (most - len(part))] for part in parts], [len(part) for part in parts]


def shares_of(parts: Sequence[Sequence[Entry]]) -> Tensor:
    """`(num_trials, batch)`, in double precision until the losses' own is known."""
    return torch.tensor([[share for _, share in part] for part in parts], dtype=torch.float64)


LossSettings = tuple[Tensor | None, Tensor, Tensor | float]


def _stacked_settings(trials: Sequence[PackTrial], like: Tensor) -> LossSettings:
    dtype = torch.promote_types(like.dtype, torch.float32)

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=dtype).view(-1, 1, 1).to(like.device)

    weights, weight = [trial.loss_weight for trial in trials], None
    if any(w is not None for w in weights):
        even = torch.ones(like.shape[-1])
        weight = torch.stack([even if w is None else w.cpu() for w in weights]).unsqueeze(1).to(like.device, dtype)
    gammas = [trial.focal_gamma for trial in trials]
    return weight, column([t.label_smoothing for t in trials]), column(gammas) if any(gammas) else 0.0


class HeadTask:
    """Rows, losses and evaluation of a class head; everything here is shared by the trials of a pack."""

    def __init__(
        self,
        train: TextRows,
        validation: TextRows,
        test: TextRows | None,
        *,
        label_names: Sequence[str],
        multilabel: bool,
        tune_thresholds: bool,
        split_seed: int,
        eval_batch_size: int,
        pad_id: int,
    ) -> None:
        self.train, self.validation, self.test = train, validation, test
        self.label_names, self.multilabel = label_names, multilabel
        self.evaluation: dict[str, Any] = {"multilabel": multilabel, "tune": tune_thresholds, "seed": split_seed}
        self.eval_batch_size, self.pad_id = eval_batch_size, pad_id
        self.lengths = [len(row) for row in train.input_ids]
        self.units = [1] * len(self.lengths)
        self._stacked: tuple[list[PackTrial], LossSettings | None] = [], None

    # training

    def collate(self, parts: Sequence[Sequence[Entry]], device: torch.device) -> PackBatch:
        """One forward pass over everybody's rows; the same rows for all are padded and moved once."""
        widths = [max(self.lengths[row] for row, _ in part) for part in parts]
        full, num_rows = filled(parts)
        rows = [[row for row, _ in part] for part in full]
        same = all(own == rows[0] for own in rows)
        flat = rows[0] if same else [row for own in rows for row in own]
        ids, mask = pad_batch([self.train.input_ids[row] for row in flat], self.pad_id)
        labels = torch.from_numpy(self.train.labels[flat].astype(np.float32)).to(device, non_blocking=True)
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        on_device = {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}
        if same:
            on_device = {name: tensor.repeat(len(parts), 1) for name, tensor in on_device.items()}
        targets = labels.view(1 if same else len(parts), -1, labels.shape[-1])
        return PackBatch(on_device, targets, shares_of(full).to(device, non_blocking=True), num_rows, widths)

    def losses(self, model: Any, batch: PackBatch, trials: Sequence[PackTrial]) -> Tensor:
        """`(num_trials,)`: each trial's part of its own mean over the global batch."""
        logits: Tensor = model(**batch.inputs).logits
        logits = logits.view(len(trials), -1, logits.shape[-1])
        weight, smoothing, gamma = self._loss_settings(trials, logits)
        labels = batch.targets.expand(logits.shape).to(torch.promote_types(logits.dtype, torch.float32))
        smooth: Any = smoothing  # broadcasts as a number would
        if self.multilabel:
            losses = multilabel_losses(logits, labels, pos_weight=weight, label_smoothing=smooth, focal_gamma=gamma)
        else:
            losses = singlelabel_losses(logits, labels, class_weight=weight, label_smoothing=smooth, focal_gamma=gamma)
        return (losses * batch.share.to(losses.dtype)).sum(1)

    def _loss_settings(self, trials: Sequence[PackTrial], like: Tensor) -> LossSettings:
        """Class weights `(num_trials, 1, num_labels)` or None, smoothing and focal gamma `(num_trials, 1, 1)` (0.0
        where nobody has one); kept between steps."""
        kept, settings = self._stacked
        same = len(kept) == len(trials) and all(a is b for a, b in zip(kept, trials, strict=True))
        if not same:
            settings = _stacked_settings(trials, like)
            self._stacked = list(trials), settings
        assert settings is not None
        return settings

    # evaluation

    def predict(
        self, pack: PackedModel, autocast: Autocast, slots: list[int], rows: Sequence[list[int]], max_rows: int
    ) -> np.ndarray:
        """Logits `(num_trials, num_examples, num_labels)` float32 of the given slots on the same rows."""
        pack.module.eval()
        size = max(1, min(self.eval_batch_size, max_rows // len(slots)))
        plan = plan_evaluation([len(row) for row in rows], size)
        parts: list[Tensor] = []
        with torch.inference_mode(), autocast(), pack.using(slots) as model:
            for batch in plan:
                ids, mask = pad_batch([rows[row] for row in batch], self.pad_id)
                tensors = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
                inputs = {name: t.to(pack.device).repeat(len(slots), 1) for name, t in tensors.items()}
                logits = model(**inputs).logits.float()
                parts.append(logits.view(len(slots), len(batch), -1))
        logits = torch.cat(parts, dim=1).cpu().numpy()
        ordered = np.empty_like(logits)
        ordered[:, [row for batch in plan for row in batch]] = logits
        return ordered

    def evaluate(
        self, pack: PackedModel, autocast: Autocast, slots: list[int], max_rows: int
    ) -> list[tuple[dict[str, float], Any]]:
        """Validation metrics of each slot, and its logits."""
        logits = self.predict(pack, autocast, slots, self.validation.input_ids, max_rows)
        labels = self.validation.labels
        return [(validation_metrics(own, labels, **self.evaluation), own) for own in logits]

    def outcomes(
        self, pack: PackedModel, autocast: Autocast, ended: dict[int, Slot], max_rows: int
    ) -> dict[int, Outcome]:
        """The outcomes of trials whose kept weights are in their slots; the test part is predicted together."""
        from emotion_sweeps.training.packed.finish import head_outcomes

        return head_outcomes(self, pack, autocast, ended, max_rows)
