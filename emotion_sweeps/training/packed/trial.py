"""One trial of a pack: the plain values that it brings, and its state while it sits in a slot."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from emotion_sweeps.training.engine import TrialPlan
from emotion_sweeps.training.loader import PlannedBatches
from emotion_sweeps.training.packed.cursor import Cursor
from emotion_sweeps.training.plan import evaluation_steps, steps_per_epoch, total_steps
from emotion_sweeps.training.progress import TrialProgress
from emotion_sweeps.training.schedules import make_schedule
from emotion_sweeps.training.seeding import derive
from emotion_sweeps.training.settings import Settings


@dataclass
class PackTrial:
    """What a trial brings to its slot.

    Args:
        weights: first weights by PEFT's names, at the true rank.
        scaling: of its adapter, alpha / r.
        loss_weight: pos_weight or class weights `(num_labels,)`; None weighs evenly.
        token: the caller's own.
    """

    plan: TrialPlan
    seed: int
    rank: int
    scaling: float
    dropout: float
    weights: dict[str, Tensor]
    max_grad_norm: float | None = 1.0
    loss_weight: Tensor | None = None
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    settings: Settings | None = None
    token: Any = None


def trial_plan(
    lengths: Sequence[int], units: Sequence[int], settings: Settings, *, head_learning_rate: float | None
) -> TrialPlan:
    """The plan of a trial in a pack: the same as the solo engine's on one process."""
    num_steps = total_steps(len(lengths), settings["global_batch_size"], settings["epochs"], settings.get("max_steps"))
    batches = PlannedBatches(
        lengths,
        units,
        global_batch_size=settings["global_batch_size"],
        micro_batch_size=settings["micro_batch_size"],
        seed=settings["seed"],
    )
    shape = {name: settings[name] for name in ("num_cycles", "power", "final_ratio") if name in settings}
    epoch_steps = steps_per_epoch(len(lengths), settings["global_batch_size"])
    progress = TrialProgress(
        settings["selection_metric"],
        num_steps,
        patience=settings.get("early_stopping_patience"),
        should_stop=settings.get("should_stop"),
    )
    return TrialPlan(
        batches=batches,
        schedule=make_schedule(settings["scheduler"], num_steps=num_steps, warmup=settings["warmup"], **shape),
        evaluation_steps=frozenset(evaluation_steps(num_steps, epoch_steps, settings.get("evals_per_epoch", 1))),
        progress=progress,
        on_record=settings["on_record"],
        learning_rate=settings["learning_rate"],
        head_learning_rate=head_learning_rate,
        weight_decay=settings["weight_decay"],
        head_modules=(),
        log_every=settings.get("log_every", 10),
        checkpoint_dir=settings.get("checkpoint_dir"),
    )


@dataclass
class Slot:
    """A trial while it trains."""

    trial: PackTrial
    cursor: Cursor
    epoch: float = 0.0
    last_logged: int = 0  # step of the last train record
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_details: Any = None
    phases: ExitStack = field(default_factory=ExitStack)
    begun_s: float = field(default_factory=time.perf_counter)
    parked: dict[str, dict[str, Tensor]] | None = None  # its buffers while it waits for a slot
    counters: list[float] = field(default_factory=list)  # its column of `Slots.counters` meanwhile

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.cursor.step

    @property
    def plan(self) -> TrialPlan:
        """The trial's plan."""
        return self.trial.plan

    def elapsed_s(self) -> float:
        """Since it began to train, what came before a resume included."""
        return self.plan.progress.elapsed_s + time.perf_counter() - self.begun_s

    def bank_time(self) -> None:
        """Move the time that has passed into the progress, which a checkpoint carries."""
        self.plan.progress.elapsed_s, self.begun_s = self.elapsed_s(), time.perf_counter()

    def train_record(self, loss: float, norm: float) -> dict[str, Any]:
        """What the solo engine records of its last steps."""
        plan, share = self.plan, self.plan.schedule(self.step - 1)
        head = plan.head_learning_rate
        return {
            "kind": "train",
            "step": self.step,
            "epoch": self.epoch,
            "loss": loss,
            "learning_rate": plan.learning_rate * share,
            "head_learning_rate": None if head is None else head * share,
            "grad_norm": None if self.trial.max_grad_norm is None else norm,
            "time_s": self.elapsed_s(),
        }

    def stream_seed(self, step: int, number: int) -> int:
        """The dropout stream of one micro-batch."""
        return derive(self.trial.seed, "pack dropout", step, number)


@dataclass(frozen=True)
class PackBatch:
    """One forward pass: the micro-batches of all trials, trial-major, padded to the same rows and width.

    `inputs` tensors are `(num_trials * batch, seq)`; `targets` `(num_trials, batch, num_labels)` for heads and
    `(num_trials * batch, positions)` for generation; `share` `(num_trials, batch)` float64, 0 for filler rows.
    """

    inputs: Mapping[str, Any]
    targets: Tensor
    share: Tensor
    num_rows: list[int]  # of each trial, filler not counted
    widths: list[int]  # tokens of each trial's longest row
