"""Rules between fields, and the checks that need only a look at the disk: all before anything heavy is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from emotion_sweeps.config.schema import DataConf, TrainConf
from emotion_sweeps.errors import UserError, did_you_mean

GENERATION_METRICS = ("token_accuracy", "invalid_answers")
HALF_METRICS = ("macro_f1_at_half", "micro_f1_at_half")


FILE_REMEDY = "give the path of a TSV, CSV, JSONL or Parquet file"
OWN_TEXTS = (
    "train", "validation", "test", "path", "text_column", "label_column", "label_columns", "id_column", "delimiter",
    "header", "label_separator",
)  # fmt: skip


def check(conf: TrainConf) -> None:
    """Raise `UserError` for the first rule between fields that `conf` breaks."""
    _check_task_fits_model(conf)
    _check_metrics(conf)
    _check_data(conf)
    _check_hardware(conf)
    _check_schedule(conf)


def _check_task_fits_model(conf: TrainConf) -> None:
    model, generation = conf.model, conf.task.name == "label_generation"
    if generation and model.kind == "encoder":
        raise UserError(
            f"task=label_generation needs a decoder that writes text, and model={model.name} is an encoder; "
            "take model=qwen3_0_6b or gemma3_270m, or task=multilabel_head"
        )
    if model.pooling == "last" and model.kind == "encoder":
        raise UserError(f"model.pooling=last needs a decoder, and model={model.name} is an encoder; take mean or first")
    if model.pooling == "first" and model.kind == "decoder":
        raise UserError(f"model.pooling=first needs an encoder, and model={model.name} is a decoder; take last or mean")


def _check_metrics(conf: TrainConf) -> None:
    named = [("objective.metric", metric) for metric in conf.objective.metrics]
    for path, metric in (*named, ("training.selection_metric", conf.training.selection_metric)):
        if metric in GENERATION_METRICS and conf.task.name != "label_generation":
            raise UserError(f"{path}={metric} exists for task=label_generation alone; take loss or macro_f1")
        if metric in HALF_METRICS and conf.task.name != "multilabel_head":
            raise UserError(f"{path}={metric} exists for task=multilabel_head alone; take macro_f1 or micro_f1")


def _check_data(conf: TrainConf) -> None:
    data = conf.data
    if data.source == "demo":
        _check_demo(data)
    if data.source == "files":
        _check_files(data)
    if data.source == "hub" and data.path is None:
        raise UserError("data.path must be given for data.source=hub; give a dataset id such as dair-ai/emotion")
    if data.validation is not None and data.test is None and data.test_fraction > 0:
        raise UserError("data.test_fraction cuts nothing where data.validation is given; give data.test instead")
    if data.label_column is not None and data.label_columns is not None:
        raise UserError("data.label_column and data.label_columns exclude each other; give one of them")


def _check_demo(data: DataConf) -> None:
    unread = [key for key in OWN_TEXTS if getattr(data, key) is not None]
    if unread or data.test_fraction > 0:
        key = unread[0] if unread else "test_fraction"
        raise UserError(f"data.{key} is not read by data=demo; take data=files or data=hub for your own texts")


def _check_files(data: DataConf) -> None:
    if data.train is None:
        raise UserError(f"data.train must be given for data.source=files; {FILE_REMEDY}")
    for key in ("train", "validation", "test"):
        path = getattr(data, key)
        if path is not None:
            _check_file(f"data.{key}", Path(path).expanduser())
    if data.validation is None and data.validation_fraction == 0:
        raise UserError("data.validation_fraction must be > 0 where data.validation is not given")


def _check_file(key: str, path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{key}: {path} is a folder; give a file in it, or data=hub data.path={path}")
    if not path.is_file():
        near = did_you_mean(path, (str(p) for p in path.parent.glob("*") if p.is_file()))
        raise UserError(f"{key}: file not found: {path}{near}; {FILE_REMEDY}")


def _check_hardware(conf: TrainConf) -> None:
    hardware = conf.hardware
    if hardware.load_in_4bit and find_spec("bitsandbytes") is None:
        raise UserError(
            "hardware.load_in_4bit=true needs bitsandbytes, which is not installed; pip install bitsandbytes"
        )
    if hardware.precision == "fp16" and hardware.device == "cpu":
        raise UserError("hardware.precision=fp16 needs a GPU, got hardware.device=cpu; take bf16 or fp32")
    if hardware.precision == "fp16" and "gemma-3" in conf.model.path.lower().replace("gemma3", "gemma-3"):
        raise UserError("hardware.precision=fp16 overflows in Gemma 3; take bf16 (cards from Ampere on) or fp32")


def _check_schedule(conf: TrainConf) -> None:
    steps, warmup = conf.training.max_steps, conf.scheduler.warmup_steps
    if steps is not None and warmup >= 1 and warmup > steps:
        raise UserError(f"scheduler.warmup_steps must be <= training.max_steps={steps}, got {int(warmup)}")
