"""When the trainer logs, evaluates and saves, and the progress bar.

The steps to evaluate after come from the plan, not from transformers' strategies, so both engines evaluate
alike.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped]
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from emotion_sweeps.training.loader import PlannedBatches


class PlanCallback(TrainerCallback):  # type: ignore[misc]
    """Sets the epoch of the batch plan and asks for logging, evaluation and saving at the planned steps.

    Training is logged every `log_every` steps, and at each evaluation so that a resumed run has the same
    records.
    """

    def __init__(
        self, batches: PlannedBatches, *, log_every: int, evaluation_steps: Collection[int], save: bool
    ) -> None:
        self.batches, self.log_every, self.save = batches, log_every, save
        self.evaluation_steps = frozenset(evaluation_steps)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called before the loader is iterated, also when an epoch is taken up again in its middle."""
        self.batches.epoch = state.global_step // self.batches.epoch_steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Called after each optimizer step."""
        evaluate = state.global_step in self.evaluation_steps
        control.should_evaluate = evaluate
        control.should_log = evaluate or state.global_step % self.log_every == 0
        control.should_save = evaluate and self.save
        return control


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """One bar over the trial's steps on stderr, with the last validation loss; silent when stderr is no
    terminal."""

    def __init__(self, num_steps: int) -> None:
        self.bar = tqdm(total=num_steps, unit="step", file=sys.stderr, disable=not sys.stderr.isatty(), leave=False)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start where a resumed run goes on."""
        self.bar.update(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """One step further."""
        self.bar.update(1)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show how it stands."""
        metrics = kwargs["metrics"]
        shown = {name: f"{metrics[f'eval_{name}']:.4f}" for name in ("loss", "macro_f1")}
        self.bar.set_postfix(shown)

    def close(self) -> None:
        """Remove the bar, also after a failure."""
        self.bar.close()
