"""The solo engine's core: transformers' Trainer on the project's plan, losses, schedule, records and
checkpoints.

`PlannedTrainer` is what the head trainer and the generation trainer have in common. Trainer gives the loop,
gradient accumulation, clipping, mixed precision, several GPUs; the plan of batches, the learning rates, the
evaluation, what is kept and what is written are ours. Losses arrive as sums of row loss * share, so Trainer
is told not to scale them (`loss_is_scaled_for_ga`). Nothing here waits for the device between two log points.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback

from emotion_sweeps.models.quantization import keep_differentiable
from emotion_sweeps.training import checkpoints
from emotion_sweeps.training.callbacks import PlanCallback, ProgressBar
from emotion_sweeps.training.loader import Entry, PlannedBatches, planned_loader
from emotion_sweeps.training.memory import memory_phase
from emotion_sweeps.training.optimizer import build_optimizer, parameter_groups
from emotion_sweeps.training.progress import RUNNING, TrialProgress, diverged

OnRecord = Callable[[dict[str, Any]], None]


@dataclass
class TrialPlan:
    """The plain values that steer one trial; see `solo.train_head` for their meaning."""

    batches: PlannedBatches
    schedule: Callable[[int], float]
    evaluation_steps: Collection[int]
    progress: TrialProgress
    on_record: OnRecord
    learning_rate: float
    head_learning_rate: float | None
    weight_decay: float
    head_modules: Collection[str]
    log_every: int
    checkpoint_dir: Path | None
    memory: list[dict[str, Any]] = field(default_factory=list)

    def emit(self, record: dict[str, Any]) -> None:
        """Hand a record on; memory records are kept for the outcome too."""
        if record["kind"] == "memory":
            self.memory.append(record)
        self.on_record(record)


class PlannedTrainer(Trainer):  # type: ignore[misc]
    """Trainer on a `TrialPlan`; subclasses say how to collate, to lose and to evaluate."""

    loss_is_scaled_for_ga = True
    plan: TrialPlan
    bar: ProgressBar
    optimizer: Any  # these three are set by Trainer
    lr_scheduler: Any
    control: Any

    def follow(self, plan: TrialPlan) -> None:
        """Take the plan; called once after the framework's own set-up."""
        keep_differentiable(self.model)
        self.plan = plan
        self.args.gradient_accumulation_steps = plan.batches.accumulation
        self.best_weights: dict[str, Tensor] = {}
        self.best_details: Any = None
        self._first_bad_step = torch.zeros((), dtype=torch.long, device=self.args.device)
        self._resumed_at_s = time.perf_counter()
        self.bar = ProgressBar(plan.progress.num_steps)
        self.remove_callback(PrinterCallback)
        self.add_callback(self.bar)
        self.add_callback(
            PlanCallback(
                plan.batches,
                log_every=plan.log_every,
                evaluation_steps=plan.evaluation_steps,
                save=plan.checkpoint_dir is not None,
            )
        )

    # what a subclass says

    def collate(self, entries: list[Entry]) -> dict[str, Any]:
        """The tensors of one micro-batch."""
        raise NotImplementedError

    def evaluate_validation(self) -> tuple[dict[str, float], Any]:
        """Validation metrics, and the details that predictions are made from."""
        raise NotImplementedError

    # what Trainer asks for

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The plan, untouched by accelerate."""
        return planned_loader(self.plan.batches, self.collate)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Adapter and head with their own learning rates."""
        if self.optimizer is None:
            model = self.model if model is None else model
            groups = parameter_groups(
                model,
                learning_rate=self.plan.learning_rate,
                head_learning_rate=self.plan.head_learning_rate or self.plan.learning_rate,
                weight_decay=self.plan.weight_decay,
                head_modules=self.plan.head_modules,
            )
            self.optimizer = build_optimizer(self.args, model, groups)
        return self.optimizer  # type: ignore[no-any-return]

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The closed-form schedule, the same share for every parameter group."""
        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self.plan.schedule)
            self._created_lr_scheduler = True
        return self.lr_scheduler  # type: ignore[no-any-return]

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One micro-batch; notes on the device, without waiting for it, the first step with a non-finite
        loss."""
        loss: Tensor = super().training_step(*args, **kwargs)
        bad = ~torch.isfinite(loss) & (self._first_bad_step == 0)
        self._first_bad_step = torch.where(bad, self.state.global_step + 1, self._first_bad_step)
        return loss

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: it walks over every parameter of the base at each micro-batch."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Turn Trainer's running loss into a train record; its other logs are not ours.

        Raises:
            DivergedError: the loss of a step since the last record is not finite.
        """
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise diverged(logs["loss"], int(self._first_bad_step) or self.state.global_step)
        share = self.plan.schedule(self.state.global_step - 1)
        head = self.plan.head_learning_rate
        record = {
            "kind": "train",
            "step": self.state.global_step,
            "epoch": float(self.state.epoch or 0.0),
            "loss": logs["loss"],
            "learning_rate": self.plan.learning_rate * share,
            "head_learning_rate": None if head is None else head * share,
            "grad_norm": logs.get("grad_norm"),
            "time_s": self._elapsed_s(),
        }
        self._emit(record)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate the validation part, keep the weights when they are the best, decide whether to go on."""
        plan, begin = self.plan, time.perf_counter()
        with memory_phase("evaluate", self._emit):
            metrics, details = self.evaluate_validation()
        plan.progress.evaluate_s += time.perf_counter() - begin
        step, epoch = self.state.global_step, float(self.state.epoch or 0.0)
        where = {"split": "validation", "step": step, "epoch": epoch, "time_s": self._elapsed_s()}
        self._emit({"kind": "eval", **where, **metrics})
        if plan.progress.evaluated(step, epoch, metrics):
            self.best_weights, self.best_details = checkpoints.trainable_weights(self.model), details
        plan.progress.status = self._first_process_says(plan.progress.status)
        self.control.should_training_stop |= plan.progress.status != RUNNING
        named = {f"eval_{name}": value for name, value in metrics.items()}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        return named

    # checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.plan.checkpoint_dir is None:
            return
        self.plan.progress.elapsed_s, self._resumed_at_s = self._elapsed_s(), time.perf_counter()
        main = self.is_world_process_zero()
        if main:
            checkpoints.partial_folder(self.plan.checkpoint_dir, self.state.global_step)
        self.accelerator.wait_for_everyone()
        partial = checkpoints.partial_path(self.plan.checkpoint_dir, self.state.global_step)
        self._save_optimizer_and_scheduler(str(partial))
        self._save_scaler(str(partial))
        self._save_rng_state(str(partial))
        self.accelerator.wait_for_everyone()
        if main:
            self.state.save_to_json(str(partial / "trainer_state.json"))
            checkpoints.write_progress(partial, self.model, self.best_weights, self.plan.progress.state())
            checkpoints.publish(partial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.restore(Path(resume_from_checkpoint))

    def restore(self, checkpoint: Path) -> None:
        """Weights, best weights and progress of a checkpoint."""
        checkpoints.load_weights(self.model, checkpoints.read_weights(checkpoint))
        self.best_weights, state = checkpoints.read_progress(checkpoint)
        self.plan.progress.load(state)

    # for subclasses and `solo`

    def run(self, resume_from: Path | None) -> None:
        """Train to the end, or on from a checkpoint; the model then holds the kept weights."""
        if resume_from is not None:
            self.restore(resume_from)
        self._resumed_at_s = time.perf_counter()
        try:
            with memory_phase("train", self._emit):
                if self.plan.progress.status == RUNNING:
                    self.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
        finally:
            self.bar.close()
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.plan.progress.elapsed_s = self._elapsed_s()
        checkpoints.load_weights(self.model, self.best_weights)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The mixed precision of training, for forward passes that Trainer does not run."""
        dtype = torch.bfloat16 if self.args.bf16 else torch.float16
        return torch.autocast(self.args.device.type, dtype, enabled=bool(self.args.bf16 or self.args.fp16))

    def _first_process_says(self, status: str) -> str:
        """One answer for all processes: the study may prune a trial between two of their questions."""
        if self.args.world_size <= 1:
            return status
        said = [status]
        broadcast_object_list(said, from_process=0)
        return said[0]

    def _elapsed_s(self) -> float:
        return self.plan.progress.elapsed_s + time.perf_counter() - self._resumed_at_s

    def _emit(self, record: dict[str, Any]) -> None:
        if self.is_world_process_zero():
            self.plan.emit(record)
