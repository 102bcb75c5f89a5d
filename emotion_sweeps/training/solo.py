"""One trial alone: from a model with an adapter and token rows to an `Outcome`.

`train_head` runs transformers' Trainer, `train_generation` trl's SFTTrainer, both on the project's batch
plan, losses, schedule and records. The adapter must have been created under the trial's seed; dropout is
seeded here. On return the model holds the weights of the best evaluation by the selection metric and is in
eval mode.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, TrainingArguments
from trl import SFTConfig

from emotion_sweeps.training.arguments import training_arguments
from emotion_sweeps.training.engine import TrialPlan
from emotion_sweeps.training.generation_trainer import GenerationTrainer, ParseAnswer
from emotion_sweeps.training.head_trainer import HeadTrainer, Side
from emotion_sweeps.training.loader import PlannedBatches
from emotion_sweeps.training.losses import (
    class_weight_from_labels,
    multilabel_losses,
    pos_weight_from_labels,
    singlelabel_losses,
)
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.plan import evaluation_steps, steps_per_epoch, total_steps
from emotion_sweeps.training.progress import TrialProgress
from emotion_sweeps.training.results import generation_outcome, head_outcome
from emotion_sweeps.training.rows import PromptRows, TextRows
from emotion_sweeps.training.schedules import make_schedule
from emotion_sweeps.training.seeding import derive
from emotion_sweeps.training.settings import Settings

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def train_head(
    model: nn.Module,
    train: TextRows,
    validation: TextRows,
    test: TextRows | None = None,
    *,
    label_names: Sequence[str],
    multilabel: bool,
    head_modules: Collection[str],
    head_learning_rate: float,
    pad_id: int,
    padding_side: Side = "right",
    weighting: str = "none",
    weight_cap: float = 5.0,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    tune_thresholds: bool = True,
    split_seed: int = 0,
    **settings: Unpack[Settings],
) -> Outcome:
    """Train a class head with its adapter.

    Args:
        model: forward gives `.logits` `(batch, num_labels)`; what is trained has requires_grad and is fp32.
        test: predicted and scored once, with the kept weights, unless the trial is pruned.
        head_modules: module names of the class head, which trains at `head_learning_rate`.
        weighting: pos_weight (multi-label) or class weights (single-label) from the training labels: none,
            sqrt, balanced.
        focal_gamma: of the focal loss; 0 is the plain one.
        tune_thresholds: multi-label only; validation metrics are then cross-fitted.
        split_seed: draws the halves of cross-fitting, the same for every trial of a study.
    Raises:
        UserError: unknown optimizer or metric.
        DivergedError: the loss is no longer a number.
    """
    losses = _head_losses(train, multilabel, weighting, weight_cap, settings["device"])
    losses = partial(losses, label_smoothing=label_smoothing, focal_gamma=focal_gamma)
    with _output_dir(settings.get("checkpoint_dir")) as output_dir:
        args = _arguments(TrainingArguments, output_dir, len(train), settings)
        lengths = [len(row) for row in train.input_ids]
        trainer = HeadTrainer(model=model, args=args)
        trainer.follow(
            _plan(
                args,
                lengths,
                [1] * len(lengths),
                settings,
                head_learning_rate=head_learning_rate,
                head_modules=head_modules,
            )
        )
        trainer.attach(
            train,
            validation,
            example_losses=losses,
            multilabel=multilabel,
            tune_thresholds=tune_thresholds,
            split_seed=split_seed,
            eval_batch_size=settings["eval_batch_size"],
            pad_id=pad_id,
            padding_side=padding_side,
        )
        trainer.run(settings.get("resume_from"))
        return head_outcome(trainer, test, label_names)


def train_generation(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    train: PromptRows,
    validation: PromptRows,
    test: PromptRows | None = None,
    *,
    label_names: Sequence[str],
    parse: ParseAnswer,
    label_smoothing: float = 0.0,
    sequence_packing: bool = False,
    after_init: Callable[[nn.Module], None] | None = None,
    **settings: Unpack[Settings],
) -> Outcome:
    """Train a causal language model to write the labels.

    Args:
        model: a PEFT model over a causal language model.
        tokenizer: has a pad token.
        test: decoded and scored once, with the kept weights, unless the trial is pruned.
        parse: an answer's text to a row of labels and whether it could be read.
        sequence_packing: train on micro-batches without padding, one row each; same losses.
        after_init: called with the model once trl has set it up; puts adapters back to fp32 on a quantised
            base.
    Raises:
        UserError: unknown optimizer or metric.
        DivergedError: the loss is no longer a number.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    with _output_dir(settings.get("checkpoint_dir")) as output_dir, _forward_kept(base):
        args = _arguments(_sft_config, output_dir, len(train), settings)
        lengths = [len(p) + len(a) for p, a in zip(train.prompt_ids, train.answer_ids, strict=True)]
        trainer = GenerationTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]}),  # asked for; never read
            data_collator=lambda rows: rows,
            processing_class=tokenizer,
        )
        if after_init is not None:
            after_init(model)
        units = [len(answer) for answer in train.answer_ids]
        trainer.follow(_plan(args, lengths, units, settings, head_learning_rate=None, head_modules=()))
        trainer.attach(
            train,
            validation,
            tokenizer=tokenizer,
            parse=parse,
            label_smoothing=label_smoothing,
            eval_batch_size=settings["eval_batch_size"],
            sequence_packing=sequence_packing,
        )
        trainer.run(settings.get("resume_from"))
        return generation_outcome(trainer, test, label_names)


def _sft_config(**arguments: Any) -> SFTConfig:
    return SFTConfig(**arguments, max_length=None, packing=False, dataset_kwargs={"skip_prepare_dataset": True})


@contextmanager
def _forward_kept(base: nn.Module) -> Iterator[None]:
    """Undo at the end what trl does to the base's forward, so that a cached base serves the next trial
    unchanged."""
    before = base.__dict__.get("forward")
    try:
        yield
    finally:
        base.__dict__.pop("forward", None)
        if before is not None:
            base.__dict__["forward"] = before


@contextmanager
def _output_dir(checkpoint_dir: Path | None) -> Iterator[Path]:
    """The folder that Trainer insists on: the checkpoints', or one that goes away."""
    if checkpoint_dir is not None:
        yield Path(checkpoint_dir)
        return
    with tempfile.TemporaryDirectory(prefix="emotion_sweeps_") as folder:
        yield Path(folder)


def _head_losses(
    train: TextRows,
    multilabel: bool,
    weighting: str,
    cap: float,
    device: torch.device,
) -> Callable[..., Tensor]:
    from_labels = pos_weight_from_labels if multilabel else class_weight_from_labels
    weights = from_labels(train.labels, weighting, cap)
    tensor = None if weights is None else torch.from_numpy(weights).to(device)
    if multilabel:
        return partial(multilabel_losses, pos_weight=tensor)
    return partial(singlelabel_losses, class_weight=tensor)


def _num_steps(num_examples: int, settings: Settings) -> int:
    return total_steps(num_examples, settings["global_batch_size"], settings["epochs"], settings.get("max_steps"))


def _arguments(make: Callable[..., Arguments], output_dir: Path, num_examples: int, settings: Settings) -> Arguments:
    return training_arguments(
        make,
        output_dir=output_dir,
        device=settings["device"],
        precision=settings["precision"],
        seed=derive(settings["seed"], "dropout"),
        num_steps=_num_steps(num_examples, settings),
        micro_batch_size=settings["micro_batch_size"],
        learning_rate=settings["learning_rate"],
        optimizer=settings.get("optimizer", "adamw_torch"),
        max_grad_norm=settings.get("max_grad_norm", 1.0),
        gradient_checkpointing=settings.get("gradient_checkpointing", False),
    )


def _plan(
    args: TrainingArguments,
    lengths: list[int],
    units: list[int],
    settings: Settings,
    *,
    head_learning_rate: float | None,
    head_modules: Collection[str],
) -> TrialPlan:
    num_steps = _num_steps(len(lengths), settings)
    batches = PlannedBatches(
        lengths,
        units,
        global_batch_size=settings["global_batch_size"],
        micro_batch_size=settings["micro_batch_size"],
        seed=settings["seed"],
        process=args.process_index,
        num_processes=args.world_size,
    )
    shape = {name: settings[name] for name in ("num_cycles", "power", "final_ratio") if name in settings}
    epoch_steps = steps_per_epoch(len(lengths), settings["global_batch_size"])
    return TrialPlan(
        batches=batches,
        schedule=make_schedule(settings["scheduler"], num_steps=num_steps, warmup=settings["warmup"], **shape),
        evaluation_steps=evaluation_steps(num_steps, epoch_steps, settings.get("evals_per_epoch", 1)),
        progress=TrialProgress(
            settings["selection_metric"],
            num_steps,
            patience=settings.get("early_stopping_patience"),
            should_stop=settings.get("should_stop"),
        ),
        on_record=settings["on_record"],
        learning_rate=settings["learning_rate"],
        head_learning_rate=head_learning_rate,
        weight_decay=settings["weight_decay"],
        head_modules=head_modules,
        log_every=settings.get("log_every", 10),
        checkpoint_dir=settings.get("checkpoint_dir"),
    )
