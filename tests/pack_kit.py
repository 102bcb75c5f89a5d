"""Packs on models small enough for seconds, and the same trials trained alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma3TextConfig,
    PreTrainedModel,
    Qwen3Config,
    RobertaConfig,
)

from emotion_sweeps.lora.inject import add_adapter
from emotion_sweeps.lora.packed_model import PackedModel, base_twin, redraw_head, scaling_of
from emotion_sweeps.lora.targets import resolve_targets
from emotion_sweeps.models.heads import head_names
from emotion_sweeps.training.checkpoints import trainable_weights
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.packed.engine import PackEngine
from emotion_sweeps.training.packed.head_task import HeadTask
from emotion_sweeps.training.packed.trial import PackTrial, Slot, trial_plan
from emotion_sweeps.training.rows import TextRows
from emotion_sweeps.training.seeding import derive

LABELS = ["anger", "joy", "fear"]
_SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "pad_token_id": 1,
    "initializer_range": 0.2,
}


def roberta(dropout: float = 0.0) -> RobertaConfig:
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return RobertaConfig(**_SHAPE, **rates, max_position_embeddings=40)


def qwen3() -> Qwen3Config:
    return Qwen3Config(**_SHAPE, num_key_value_heads=1, head_dim=8, eos_token_id=2)


def gemma3() -> Gemma3TextConfig:
    return Gemma3TextConfig(
        **_SHAPE,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
    )


CONFIGS: dict[str, Callable[[], Any]] = {"roberta": roberta, "qwen3": qwen3, "gemma3": gemma3}


def head_base(config: Any, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A frozen base with a stock class head, always the same weights."""
    torch.manual_seed(0)
    config.num_labels = len(LABELS)
    return AutoModelForSequenceClassification.from_config(config).to(dtype).eval()


def generator_base(config: Any, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def rows(count: int, seed: int = 0, *, multilabel: bool = True) -> TextRows:
    """Token rows of 3 to 11 tokens whose labels follow from which tokens they hold."""
    rng = np.random.default_rng(seed)
    ids = [[int(t) for t in rng.integers(5, 60, rng.integers(3, 12))] for _ in range(count)]
    score = np.array([[sum(t % 3 == label for t in row) / len(row) for label in range(3)] for row in ids])
    labels = (score > 0.35).astype(np.uint8) if multilabel else np.eye(3, dtype=np.uint8)[score.argmax(1)]
    return TextRows([f"row{i}" for i in range(count)], ids, labels)


@dataclass
class Spec:
    """One trial's hyper-parameters; the defaults are a small plain trial."""

    r: int = 4
    alpha: float = 8.0
    dropout: float = 0.0
    learning_rate: float = 1e-2
    head_learning_rate: float = 3e-2
    scheduler: str = "linear"
    warmup: float = 2
    weight_decay: float = 0.0
    max_grad_norm: float | None = 1.0
    seed: int = 3
    use_rslora: bool = False
    global_batch_size: int = 8
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    loss_weight: list[float] | None = None
    early_stopping_patience: int | None = None
    should_stop: Callable[[], bool] | None = None
    checkpoint_dir: Path | None = None
    resume_from: Path | None = None
    max_steps: int | None = None
    name: str = ""
    records: list[dict[str, Any]] = field(default_factory=list)

    def settings(self, **more: Any) -> Any:
        values = {
            "seed": self.seed,
            "device": torch.device("cpu"),
            "precision": "fp32",
            "global_batch_size": self.global_batch_size,
            "micro_batch_size": 8,
            "eval_batch_size": 16,
            "epochs": 2,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "scheduler": self.scheduler,
            "warmup": self.warmup,
            "selection_metric": "loss",
            "on_record": self.records.append,
            "log_every": 1,
            "max_grad_norm": self.max_grad_norm,
            "early_stopping_patience": self.early_stopping_patience,
            "should_stop": self.should_stop,
            "checkpoint_dir": self.checkpoint_dir,
            "resume_from": self.resume_from,
            "max_steps": self.max_steps,
        }
        return values | more


def peft_twin(base: PreTrainedModel, spec: Spec, targets: Any = "all-linear") -> PeftModel:
    """The trial's own PEFT model on shared base weights, made as a trial alone makes it."""
    twin = base_twin(base)
    if head_names(base):
        redraw_head(twin, derive(spec.seed, "head"), {"score.weight", *_head_parameters(base)})
        for head in head_names(base):
            twin.get_submodule(head).to(base.dtype)
    model = add_adapter(
        twin,
        r=spec.r,
        alpha=spec.alpha,
        dropout=spec.dropout,
        target_modules=targets,
        use_rslora=spec.use_rslora,
        use_dora=False,
        bias="none",
        modules_to_save=[],
        task_type="SEQ_CLS" if head_names(base) else "CAUSAL_LM",
        base_reference="tests/base",
        seed=derive(spec.seed, "adapter"),
    )
    return model.to(base.dtype)


def _head_parameters(base: PreTrainedModel) -> set[str]:
    return {n for head in head_names(base) for n, _ in base.get_submodule(head).named_parameters(prefix=head)}


@dataclass
class Ended:
    """What came out of a pack, by the trial's token."""

    outcomes: dict[Any, Outcome] = field(default_factory=dict)
    errors: dict[Any, Exception] = field(default_factory=dict)
    weights: dict[Any, dict[str, Tensor]] = field(default_factory=dict)
    order: list[Any] = field(default_factory=list)
    engine: Any = None
    trace: dict[Any, list[dict[str, Tensor]]] = field(default_factory=dict)


def run_pack(
    base: PreTrainedModel,
    task: Any,
    specs: Sequence[Spec],
    *,
    num_slots: int = 16,
    max_rank: int = 1,
    prepare: Callable[[PackEngine], None] | None = None,
    **settings: Any,
) -> Ended:
    """Train the specs in a pack, in their order; tokens are their indices."""
    targets = resolve_targets(base, "all-linear")
    pack = PackedModel(base, targets, num_slots=1, max_rank=max_rank, dtype=base.dtype)
    ended, waiting = Ended(), list(enumerate(specs))

    def feed() -> PackTrial | None:
        return make_trial(base, task, *waiting.pop(0), **settings) if waiting else None

    def on_end(trial: PackTrial, end: Outcome | Exception, weights: dict[str, Tensor]) -> None:
        ended.order.append(trial.token)
        ended.weights[trial.token] = weights
        if isinstance(end, Exception):
            ended.errors[trial.token] = end
        else:
            ended.outcomes[trial.token] = end

    def on_tick(members: list[Slot]) -> None:
        for index, slot in enumerate(members):
            state = {
                f"{buffer}/{name}": value
                for buffer in ("weights", "exp_avg", "exp_avg_sq")
                for name, value in pack.store.read(index, slot.trial.rank, buffer).items()
            }
            if len(ended.trace.setdefault(slot.trial.token, [])) < slot.step:
                ended.trace[slot.trial.token].append(state)
            assert pack.store.padding_is_zero(index, slot.trial.rank) or slot.trial.token in tolerated

    tolerated: set[Any] = {index for index, spec in enumerate(specs) if spec.learning_rate > 1e6}
    engine = PackEngine(pack, task, num_slots=num_slots, precision="fp32", feed=feed, on_end=on_end, on_tick=on_tick)
    ended.engine = engine
    if prepare is not None:
        prepare(engine)
    engine.run()
    return ended


def make_trial(base: PreTrainedModel, task: Any, token: Any, spec: Spec, **settings: Any) -> PackTrial:
    values = spec.settings(**settings)
    head_rate = spec.head_learning_rate if head_names(base) else None
    return PackTrial(
        plan=trial_plan(task.lengths, task.units, values, head_learning_rate=head_rate),
        seed=spec.seed,
        rank=spec.r,
        scaling=scaling_of(spec.r, spec.alpha, spec.use_rslora),
        dropout=spec.dropout,
        weights=trainable_weights(peft_twin(base, spec)),
        max_grad_norm=spec.max_grad_norm,
        loss_weight=None if spec.loss_weight is None else torch.tensor(spec.loss_weight),
        label_smoothing=spec.label_smoothing,
        focal_gamma=spec.focal_gamma,
        settings=values,
        token=token,
    )


def head_task(
    train: TextRows, validation: TextRows, test: TextRows | None = None, *, multilabel: bool = True
) -> HeadTask:
    return HeadTask(
        train,
        validation,
        test,
        label_names=LABELS,
        multilabel=multilabel,
        tune_thresholds=True,
        split_seed=0,
        eval_batch_size=16,
        pad_id=1,
    )
