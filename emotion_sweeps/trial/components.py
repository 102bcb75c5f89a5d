"""From a checked config to what a trial trains: hardware, corpus, base model, adapter, rows of tokens."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from omegaconf import OmegaConf
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emotion_sweeps.config.compose import to_conf
from emotion_sweeps.config.schema import DataConf, HardwareConf, TrainConf
from emotion_sweeps.data.answers import answer_trie
from emotion_sweeps.data.corpus import Corpus, Split
from emotion_sweeps.data.examples import draw_examples
from emotion_sweeps.data.load import load_corpus
from emotion_sweeps.data.prompts import PromptStyle, default_instruction, encode_generation, render_answer
from emotion_sweeps.data.tokens import encode_texts
from emotion_sweeps.errors import UserError
from emotion_sweeps.lora.inject import add_adapter
from emotion_sweeps.models.load import load_classifier, load_generator, model_kind
from emotion_sweeps.models.quantization import bitsandbytes_config
from emotion_sweeps.models.sources import ModelSource, resolve_source
from emotion_sweeps.models.tokenizers import load_tokenizer
from emotion_sweeps.notices import notice_once
from emotion_sweeps.training.precision import base_dtype, cpu_flags, pick_device, pick_precision
from emotion_sweeps.training.rows import PromptRows, TextRows
from emotion_sweeps.training.seeding import derive

logger = logging.getLogger("emotion_sweeps")
POOLING = {"encoder": "first", "decoder": "last"}


@dataclass(frozen=True)
class Hardware:
    """Where a trial runs, in which precision, and why that one."""

    device: torch.device
    precision: str
    reason: str


@dataclass(frozen=True)
class Base:
    """A base model's whereabouts, before its weights are read."""

    source: ModelSource
    kind: str  # encoder, decoder
    pooling: str
    tokenizer: PreTrainedTokenizerBase


def pick_hardware(conf: HardwareConf, kind_of_model: str) -> Hardware:
    """Device and precision as asked for, or the best that is there."""
    if conf.num_threads is not None:
        torch.set_num_threads(conf.num_threads)
    device = pick_device(conf.device)
    model_type = "gemma3" if "gemma" in kind_of_model else ""
    precision, reason = pick_precision(conf.precision, device, cpu_flags(), model_type=model_type)
    return Hardware(device, precision, reason)


def corpus_of(conf: DataConf) -> Corpus:
    """The corpus that `conf` names; read once a process, for all the trials of a sweep."""
    settings = {key: value for key, value in asdict(conf).items() if key != "max_length"}
    return _corpus(OmegaConf.to_yaml(OmegaConf.create(settings)))


@lru_cache(maxsize=4)
def _corpus(settings_yaml: str) -> Corpus:
    settings: Any = OmegaConf.to_container(OmegaConf.create(settings_yaml))
    corpus = load_corpus(**settings)
    for line in corpus.report.lines():
        logger.info(line)
    return corpus


def corpus_for_report(config: dict[str, Any]) -> Corpus:
    """The corpus of a finished trial, from the config in its result.json."""
    return corpus_of(to_conf(OmegaConf.create(config)).data)


def check_task_fits(task: str, corpus: Corpus) -> None:
    """One label a text is a promise of the single-label head; refuse data that breaks it.

    Raises:
        UserError: the data has texts with none or several labels.
    """
    if task == "singlelabel_head" and corpus.multilabel:
        others = sum(int((split.labels.sum(axis=1) != 1).sum()) for split in corpus.splits.values())
        raise UserError(
            f"task=singlelabel_head needs exactly one label a text, and {others} texts of data={corpus.name} "
            "have none or several; take task=multilabel_head"
        )


def find_base(conf: TrainConf) -> Base:
    """Where the base's weights are, what kind it is, and its tokenizer."""
    model = conf.model
    source = resolve_source(
        path=model.path, revision=model.revision, package=model.package, sha256=model.sha256, twin=model.twin
    )
    kind = model_kind(source, kind=None if model.kind == "auto" else model.kind, **_remote(model.trust_remote_code))
    pooling = POOLING[kind] if model.pooling == "auto" else model.pooling
    side = "left" if conf.task.name == "label_generation" else "right"
    tokenizer = load_tokenizer(source, padding_side=side, trust_remote_code=model.trust_remote_code)
    if conf.data.max_length > tokenizer.model_max_length:
        limit, got = tokenizer.model_max_length, conf.data.max_length
        raise UserError(f"data.max_length must be <= {limit} for model={model.name}, got {got}")
    return Base(source, kind, pooling, tokenizer)


def _remote(trust: bool) -> dict[str, bool]:
    return {"trust_remote_code": trust} if trust else {}


def build_model(conf: TrainConf, base: Base, hardware: Hardware, corpus: Corpus) -> PreTrainedModel:
    """The frozen base with a fresh adapter, and with a fresh class head where the task has one."""
    model_conf, generation = conf.model, conf.task.name == "label_generation"
    dtype = base_dtype(hardware.precision)
    shared: dict[str, Any] = {
        "dtype": dtype,
        "quantization": bitsandbytes_config(load_in_4bit=conf.hardware.load_in_4bit, compute_dtype=dtype),
        "device_map": device_map_of(conf.hardware, hardware.device),
        "attn_implementation": model_conf.attn_implementation,
        "pad_token_id": base.tokenizer.pad_token_id,
        "trust_remote_code": model_conf.trust_remote_code,
        "kind": base.kind,
    }
    if generation:
        model = load_generator(base.source, **shared)
    else:
        model = load_classifier(
            base.source,
            label_names=corpus.label_names,
            multilabel=conf.task.name == "multilabel_head",
            pooling=base.pooling,
            seed=derive(conf.seed, "head"),
            **shared,
        )
    if shared["device_map"] is None:
        model = model.to(hardware.device)
    return with_adapter(conf, model, base.source.reference)


def device_map_of(conf: HardwareConf, device: torch.device) -> Any:
    """As asked for; a 4-bit base must be told its device, or it goes to the GPU wherever there is one."""
    if conf.device_map is None and conf.load_in_4bit:
        return {"": str(device)}
    return conf.device_map


def with_adapter(conf: TrainConf, model: PreTrainedModel, reference: str) -> PreTrainedModel:
    """The adapter of a config on a base that goes by `reference`, drawn from the trial's seed."""
    lora = conf.lora
    return add_adapter(
        model,
        r=lora.r,
        alpha=lora.effective_alpha,
        dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        bias=lora.bias,
        modules_to_save=lora.modules_to_save,
        task_type="CAUSAL_LM" if conf.task.name == "label_generation" else "SEQ_CLS",
        base_reference=reference,
        seed=derive(conf.seed, "adapter"),
    )


def text_rows(split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TextRows:
    """A split as rows for a class head."""
    rows = encode_texts(tokenizer, split.texts, max_length=max_length)
    full = sum(len(row) >= max_length for row in rows)
    if full:
        notice_once(f"data.max_length={max_length}: {full} of {len(rows)} texts reach it and may have been cut")
    return TextRows(split.ids, rows, split.labels)


def prompt_style(conf: TrainConf, multilabel: bool) -> PromptStyle:
    """How the task is put to a generator, with examples from the training part where they are asked for."""
    task = conf.task
    style = PromptStyle(
        instruction=task.instruction or default_instruction(multilabel),
        separator=task.label_separator,
        none_word=task.none_word,
        use_chat_template=task.use_chat_template,
        multilabel=multilabel,
        constrained=task.decoding == "constrained",
    )
    return replace(style, examples=_examples(conf, style)) if task.few_shot else style


def _examples(conf: TrainConf, style: PromptStyle) -> tuple[tuple[str, str], ...]:
    """Training texts with their answers; the split's seed draws them, so that all trials of a study show the same."""
    corpus = corpus_of(conf.data)
    train, names = corpus.train, corpus.label_names
    rows = draw_examples(train.texts, train.labels, conf.task.few_shot, seed=conf.data.split_seed)
    return tuple((train.texts[row], render_answer(style, train.labels[row], names)) for row in rows)


def prompt_rows(
    split: Split, tokenizer: PreTrainedTokenizerBase, style: PromptStyle, label_names: list[str], max_length: int
) -> PromptRows:
    """A split as prompts and answers.

    Raises:
        UserError: the labels cannot be told apart as answers, or the prompt leaves no room for one.
    """
    trie = answer_trie(tokenizer, style, label_names)
    written = trie.tokens_of if style.constrained else None
    rows = encode_generation(
        tokenizer, style, split.texts, split.labels, label_names, max_length, answer_tokens=written
    )
    return PromptRows(split.ids, rows.prompt_ids, rows.answer_ids, split.labels, trie if style.constrained else None)
