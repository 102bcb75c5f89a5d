"""What is learned and how: model, task, adapter, schedule, length of training, objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from emotion_sweeps.config import rules
from emotion_sweeps.errors import UserError

SCHEDULERS = ("linear", "cosine", "polynomial", "constant", "constant_with_warmup")
TASKS = ("multilabel_head", "singlelabel_head", "label_generation")
WEIGHTINGS = ("none", "sqrt", "balanced")
DECODINGS = ("constrained", "free")
PROBABILITIES = ("exact", "sampled", "none")
POOLINGS = ("mean", "first", "last")
METRICS = (
    "loss",
    "macro_f1",
    "micro_f1",
    "macro_precision",
    "macro_recall",
    "micro_precision",
    "micro_recall",
    "accuracy",
    "jaccard",
    "macro_f1_at_half",
    "micro_f1_at_half",
    "token_accuracy",
    "invalid_answers",
)
LOWER_IS_BETTER = ("loss", "invalid_answers")


@dataclass
class ModelConf:
    """The frozen base: where its weights are and how a class head reads it."""

    name: str = MISSING  # short name, used in trial names and on the leaderboard
    path: str = MISSING  # hub id or local folder
    kind: str = "auto"  # encoder, decoder, or auto (read from the model's config.json)
    pooling: str = "auto"  # mean, first (encoder's own head), last (decoder's own head), auto (first or last by kind)
    revision: str | None = None  # hub revision: a tag, branch or commit
    package: str | None = (
        None  # installed Python package that carries the weights; the hub id serves where it is absent
    )
    sha256: str | None = None  # expected digest of the package's model.safetensors
    twin: str | None = None  # random-weight stand-in, built on this machine; its scores mean nothing
    attn_implementation: str = "sdpa"  # eager, sdpa, flash_attention_2
    trust_remote_code: bool = False  # runs code from the model's repository: only for repositories you have read
    search_space: dict[str, str] = field(default_factory=dict)  # searched with this model under sweep.group_spaces
    learning_rate: float = 2e-4  # the adapter learning rate that suits this model; lora.learning_rate starts from it

    def __post_init__(self) -> None:
        rules.one_of("model.kind", self.kind, ("auto", "encoder", "decoder"))
        rules.one_of("model.pooling", self.pooling, ("auto", *POOLINGS))
        rules.positive("model.learning_rate", self.learning_rate)


@dataclass
class TaskConf:
    """What is learned from the labels, how imbalance is weighed, and how a generator is asked."""

    name: str = MISSING  # multilabel_head, singlelabel_head, label_generation
    weighting: str = "none"  # pos_weight (multi-label) or class weights (single-label): none, sqrt, balanced
    weight_cap: float = 5.0  # no weight above this
    label_smoothing: float = 0.0
    max_length: int = 128  # tokens a row where data.max_length is not given; prompts need more than posts
    focal_gamma: float = 0.0  # class heads: focal loss, (1 - p)^gamma on each term; 0 is off
    tune_thresholds: bool = True  # multi-label: one threshold a label, tuned on validation
    instruction: str | None = None  # label_generation: the task statement; {labels} is the label list
    label_separator: str = ", "  # label_generation: between the labels of an answer
    none_word: str = "none"  # label_generation: the answer for a text without labels
    use_chat_template: bool = True  # label_generation: the tokenizer's chat template, where it has one
    few_shot: int = 0  # label_generation: examples in every prompt, drawn from the training part by data.split_seed
    sequence_packing: bool = False  # label_generation: train on micro-batches without padding; same losses
    decoding: str = "constrained"  # label_generation: constrained (valid answers alone) or free
    probabilities: str = "exact"  # label_generation: of the labels, with the kept weights: exact, sampled, none
    max_exact_labels: int = 12  # above that many labels (multi-label) exact means sampled
    probability_tolerance: float = 1e-3  # exact: share of all valid answers' probability that may be left out
    probability_samples: int = 64  # sampled: constrained answers a text

    def __post_init__(self) -> None:
        rules.one_of("task.name", self.name, TASKS)
        rules.one_of("task.weighting", self.weighting, WEIGHTINGS)
        rules.at_least("task.weight_cap", self.weight_cap, 1)
        rules.fraction("task.label_smoothing", self.label_smoothing)
        rules.at_least("task.focal_gamma", self.focal_gamma, 0)
        rules.at_least("task.few_shot", self.few_shot, 0)
        rules.one_of("task.decoding", self.decoding, DECODINGS)
        rules.one_of("task.probabilities", self.probabilities, PROBABILITIES)
        rules.at_least("task.max_exact_labels", self.max_exact_labels, 1)
        rules.fraction("task.probability_tolerance", self.probability_tolerance)
        rules.at_least("task.probability_samples", self.probability_samples, 2)
        self._check_task_has()
        if not self.label_separator.strip():
            raise UserError("task.label_separator must hold a visible character, got only blanks")
        if not self.none_word.strip():
            raise UserError("task.none_word must not be empty; name the answer for a text without labels")

    def _check_task_has(self) -> None:
        """Settings of one kind of task are no settings of the other."""
        generation = self.name == "label_generation"
        if generation and self.focal_gamma > 0:
            raise UserError(
                f"task.focal_gamma={self.focal_gamma:g} is for class heads; take task=multilabel_head, or leave it at 0"
            )
        if not generation and (self.few_shot or self.sequence_packing):
            field_name = "few_shot" if self.few_shot else "sequence_packing"
            raise UserError(f"task.{field_name} is for task=label_generation; leave it out for task={self.name}")


@dataclass
class LoraConf:
    """The adapter, in PEFT's terms, and the learning rates of the adapter and of the fresh class head."""

    r: int = 16
    alpha: float | None = None  # null: alpha_ratio * r
    alpha_ratio: float = 2.0
    dropout: float = 0.05
    target_modules: Any = "all-linear"  # all-linear, attention, attention_mlp, or a list of module names
    use_rslora: bool = False  # scaling alpha / sqrt(r) instead of alpha / r
    use_dora: bool = False
    bias: str = "none"  # none, all, lora_only
    modules_to_save: list[str] = field(default_factory=list)  # beside the class head, which is always saved
    learning_rate: float = MISSING
    head_learning_rate: float | None = (
        None  # null: 10 * learning_rate; a fresh head learns nothing at the adapter's rate
    )
    weight_decay: float = 0.0
    search_space: dict[str, str] = field(default_factory=dict)  # searched with this option under sweep.group_spaces

    def __post_init__(self) -> None:
        rules.at_least("lora.r", self.r, 1)
        rules.positive("lora.alpha", self.alpha)
        rules.positive("lora.alpha_ratio", self.alpha_ratio)
        rules.fraction("lora.dropout", self.dropout)
        rules.one_of("lora.bias", self.bias, ("none", "all", "lora_only"))
        rules.positive("lora.learning_rate", self.learning_rate)
        rules.positive("lora.head_learning_rate", self.head_learning_rate)
        rules.at_least("lora.weight_decay", self.weight_decay, 0)
        targets = self.target_modules
        if isinstance(targets, str):
            rules.one_of("lora.target_modules", targets, ("all-linear", "attention", "attention_mlp"))
        elif not (isinstance(targets, list) and targets and all(isinstance(t, str) and t for t in targets)):
            raise UserError(f"lora.target_modules must be a preset or a non-empty list of module names, got {targets}")

    @property
    def effective_alpha(self) -> float:
        """alpha as PEFT takes it: given, or alpha_ratio times r."""
        return self.alpha_ratio * self.r if self.alpha is None else self.alpha

    @property
    def effective_head_learning_rate(self) -> float:
        """The head's learning rate: given, or ten times the adapter's."""
        return 10 * self.learning_rate if self.head_learning_rate is None else self.head_learning_rate


@dataclass
class SchedulerConf:
    """The learning-rate schedule over optimizer steps, as in transformers."""

    name: str = MISSING
    warmup_steps: float = 0.06  # below 1: a fraction of all steps; from 1: a number of steps
    num_cycles: float = 0.5  # cosine: waves from the peak on
    power: float = 1.0  # polynomial
    final_ratio: float = 0.0  # polynomial: learning rate at the end, as a share of the peak

    def __post_init__(self) -> None:
        rules.one_of("scheduler.name", self.name, SCHEDULERS)
        rules.at_least("scheduler.warmup_steps", self.warmup_steps, 0)
        if self.warmup_steps >= 1 and self.warmup_steps != int(self.warmup_steps):
            raise UserError(
                "scheduler.warmup_steps must be below 1 (a share of the steps) or a whole number, "
                f"got {self.warmup_steps}"
            )
        rules.positive("scheduler.num_cycles", self.num_cycles)
        rules.positive("scheduler.power", self.power)
        rules.fraction("scheduler.final_ratio", self.final_ratio)


@dataclass
class TrainingConf:
    """Length of training, batch, clipping, evaluation and which weights are kept."""

    epochs: float = 3
    max_steps: int | None = None  # optimizer steps; shortens or lengthens the run whatever epochs says
    global_batch_size: int = 16  # texts an optimizer step; hardware.micro_batch_size only decides how they are cut
    optimizer: str = "adamw_torch"  # any optimizer name of transformers' Trainer
    max_grad_norm: float = 1.0
    evals_per_epoch: float = 1  # .5: after every other epoch; always once at the end
    selection_metric: Any = MISSING  # the weights that are kept and early stopping follow it
    early_stopping_patience: int | None = None  # evaluations without a better selection_metric
    log_every: int = 10  # optimizer steps between two training records
    predict_test: bool = True  # write predictions for the test part (scored only for single runs and winners)
    resume: bool = True  # go on from the last checkpoint in the run folder, where there is one

    def __post_init__(self) -> None:
        rules.positive("training.epochs", self.epochs)
        rules.at_least("training.max_steps", self.max_steps, 1)
        rules.at_least("training.global_batch_size", self.global_batch_size, 1)
        rules.positive("training.max_grad_norm", self.max_grad_norm)
        rules.positive("training.evals_per_epoch", self.evals_per_epoch)
        if isinstance(self.selection_metric, (list, tuple)):  # of several objectives the first one selects
            self.selection_metric = next(iter(self.selection_metric), None)
        rules.one_of("training.selection_metric", self.selection_metric, METRICS)
        rules.at_least("training.early_stopping_patience", self.early_stopping_patience, 1)
        rules.at_least("training.log_every", self.log_every, 1)


@dataclass
class ObjectiveConf:
    """What a trial returns: its best evaluation of one validation metric, which sweeps search and boards rank by."""

    metric: Any = "loss"  # a name, or a list of names: then a study keeps the Pareto front

    def __post_init__(self) -> None:
        if not self.metrics:
            raise UserError("objective.metric must name at least one metric, got []")
        for metric in self.metrics:
            rules.one_of("objective.metric", metric, METRICS)

    @property
    def metrics(self) -> list[str]:
        """The metrics in order; boards rank by the first."""
        return list(self.metric) if isinstance(self.metric, (list, tuple)) else [self.metric]

    @property
    def directions(self) -> list[str]:
        """`minimize` or `maximize` for each, a property of the metric."""
        return ["minimize" if metric in LOWER_IS_BETTER else "maximize" for metric in self.metrics]
