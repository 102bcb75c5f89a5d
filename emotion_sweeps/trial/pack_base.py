"""What the trials of a pack share: corpus, frozen base, hardware, token rows; loaded once a process.

The base of the last pack is kept, so that packs that follow each other (rank buckets, refills after a failure) load
nothing and tokenise nothing again.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from transformers import PreTrainedModel

from emotion_sweeps.config.compose import as_container
from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.data.corpus import Corpus
from emotion_sweeps.data.prompts import parse_answer
from emotion_sweeps.lora.packed_model import PackedModel, base_twin, head_drawn_from, redraw_head, unpackable
from emotion_sweeps.lora.targets import resolve_targets
from emotion_sweeps.models.load import load_classifier, load_generator
from emotion_sweeps.models.quantization import bitsandbytes_config
from emotion_sweeps.training.packed.generation_task import GenerationTask
from emotion_sweeps.training.packed.head_task import HeadTask
from emotion_sweeps.training.packed.task import Task
from emotion_sweeps.training.precision import base_dtype
from emotion_sweeps.training.seeding import derive
from emotion_sweeps.trial import components
from emotion_sweeps.trial.components import Base, Hardware

logger = logging.getLogger("emotion_sweeps")
GENERATION = "label_generation"
OWN_OF_HEADS = ("weighting", "weight_cap", "label_smoothing", "focal_gamma")  # each trial's own in a pack of heads


class CannotPack(Exception):
    """These trials have to run alone; the message says why."""


@dataclass(frozen=True)
class Frozen:
    """A base with a head drawn from `head_seed`, never trained itself."""

    model: PreTrainedModel
    base: Base
    hardware: Hardware
    head_seed: int
    drawn: frozenset[str]  # head parameters that each trial draws from its own seed


@dataclass(frozen=True)
class PackBase:
    """A frozen base with the rows that are trained on."""

    frozen: Frozen
    corpus: Corpus
    task: Task
    targets: tuple[str, ...]

    def pack(self, max_rank: int) -> PackedModel:
        """A pack on it with one empty slot."""
        return PackedModel(self.frozen.model, list(self.targets), num_slots=1, max_rank=max_rank)


def pack_base(conf: TrainConf) -> PackBase:
    """The shared parts of all trials whose configs agree with `conf` in what a pack shares.

    Raises:
        CannotPack: the model, its head or its precision has no packed form.
        UserError: the input cannot be used.
    """
    corpus = components.corpus_of(conf.data)
    components.check_task_fits(conf.task.name, corpus)
    parts = as_container(conf)
    generation = conf.task.name == GENERATION
    frozen_key = {
        "model": parts["model"],
        "hardware": parts["hardware"],
        "generation": generation,
        "multilabel": conf.task.name == "multilabel_head",
        "labels": corpus.label_names,
    }
    frozen = _frozen(json.dumps(frozen_key, sort_keys=True), _Hidden(conf))
    if frozen.hardware.precision == "fp16":
        raise CannotPack("hardware.precision=fp16 scales all losses by one factor, so trials would not be alone")
    targets = resolve_targets(frozen.model, conf.lora.target_modules)
    reason = unpackable(frozen.model, targets)
    if reason is not None:
        raise CannotPack(reason)
    task_key = {
        "frozen": frozen_key,
        "data": parts["data"],
        "task": {k: v for k, v in parts["task"].items() if generation or k not in OWN_OF_HEADS},
        "test": conf.training.predict_test,
        "split_seed": conf.data.split_seed,
    }
    task = _task(json.dumps(task_key, sort_keys=True), _Hidden((conf, frozen, corpus)))
    return PackBase(frozen, corpus, task, tuple(targets))


class _Hidden:
    """An argument that a cache does not look at."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hidden)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=1)
def _frozen(key: str, hidden: _Hidden) -> Frozen:
    conf: TrainConf = hidden.value
    base = components.find_base(conf)
    hardware = components.pick_hardware(conf.hardware, base.source.reference)
    corpus = components.corpus_of(conf.data)
    dtype, head_seed = base_dtype(hardware.precision), derive(conf.seed, "head")
    shared: dict[str, Any] = {
        "dtype": dtype,
        "quantization": bitsandbytes_config(load_in_4bit=conf.hardware.load_in_4bit, compute_dtype=dtype),
        "device_map": components.device_map_of(conf.hardware, hardware.device),
        "attn_implementation": conf.model.attn_implementation,
        "pad_token_id": base.tokenizer.pad_token_id,
        "trust_remote_code": conf.model.trust_remote_code,
        "kind": base.kind,
    }
    if conf.task.name == GENERATION:
        model, drawn = load_generator(base.source, **shared), set[str]()
    else:
        model = load_classifier(
            base.source,
            label_names=corpus.label_names,
            multilabel=conf.task.name == "multilabel_head",
            pooling=base.pooling,
            seed=head_seed,
            **shared,
        )
        drawn = head_drawn_from(model, head_seed)
    if not conf.hardware.load_in_4bit:
        model = model.to(hardware.device)
    return Frozen(model.requires_grad_(False), base, hardware, head_seed, frozenset(drawn))


@lru_cache(maxsize=1)
def _task(key: str, hidden: _Hidden) -> Task:
    conf, frozen, corpus = hidden.value
    tokenizer = frozen.base.tokenizer
    test = corpus.test if conf.training.predict_test else None
    if conf.task.name == GENERATION:
        style = components.prompt_style(conf, corpus.multilabel)
        encode = partial(
            components.prompt_rows,
            tokenizer=tokenizer,
            style=style,
            label_names=corpus.label_names,
            max_length=conf.data.max_length,
        )
        return GenerationTask(
            tokenizer,
            encode(corpus.train),
            encode(corpus.validation),
            None if test is None else encode(test),
            label_names=corpus.label_names,
            parse=lambda answer: parse_answer(style, answer, corpus.label_names),
            label_smoothing=conf.task.label_smoothing,
            eval_batch_size=conf.hardware.eval_batch_size,
        )
    rows = partial(components.text_rows, tokenizer=tokenizer, max_length=conf.data.max_length)
    return HeadTask(
        rows(corpus.train),
        rows(corpus.validation),
        None if test is None else rows(test),
        label_names=corpus.label_names,
        multilabel=conf.task.name == "multilabel_head",
        tune_thresholds=conf.task.tune_thresholds,
        split_seed=conf.data.split_seed,
        eval_batch_size=conf.hardware.eval_batch_size,
        pad_id=int(tokenizer.pad_token_id),
    )


def trial_model(conf: TrainConf, frozen: Frozen) -> Any:
    """The trial's own PEFT model on the shared weights, with the first weights that it has alone."""
    twin = base_twin(frozen.model)
    if conf.task.name != GENERATION:
        redraw_head(twin, derive(conf.seed, "head"), set(frozen.drawn))
    return components.with_adapter(conf, twin, frozen.base.source.reference)


def release() -> None:
    """Forget the kept base and rows, and give their memory back."""
    _frozen.cache_clear()
    _task.cache_clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
