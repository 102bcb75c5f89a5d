"""The files of a finished trial: adapter with its card, predictions, and the measured part of result.json."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.data.corpus import Corpus, Split, fingerprint
from emotion_sweeps.lora.export import save_adapter
from emotion_sweeps.models.quantization import bitsandbytes_config, describe_quantization
from emotion_sweeps.models.sources import source_card
from emotion_sweeps.paths import ADAPTER_DIR, PREDICTIONS_DIR
from emotion_sweeps.tracking.records import jsonl_safe
from emotion_sweeps.training.outcome import Outcome, Predictions
from emotion_sweeps.training.precision import base_dtype
from emotion_sweeps.trial.components import Base, Hardware, prompt_style


def write_adapter(
    run_dir: Path, model: Any, conf: TrainConf, base: Base, hardware: Hardware, corpus: Corpus, outcome: Outcome
) -> Path:
    """Save the kept adapter in PEFT's format, with tokenizer and card."""
    dtype = base_dtype(hardware.precision)
    model_conf, generation = conf.model, conf.task.name == "label_generation"
    style = prompt_style(conf, corpus.multilabel)
    card = {
        "task": conf.task.name,
        "kind": base.kind,
        "pooling": None if generation else base.pooling,
        "source": source_card(
            base.source,
            path=model_conf.path,
            revision=model_conf.revision,
            package=model_conf.package,
            sha256=model_conf.sha256,
            twin=model_conf.twin,
        ),
        "label_names": corpus.label_names,
        "multilabel": conf.task.name == "multilabel_head" or (generation and corpus.multilabel),
        "dtype": str(dtype).removeprefix("torch."),
        "quantization": describe_quantization(
            bitsandbytes_config(load_in_4bit=conf.hardware.load_in_4bit, compute_dtype=dtype)
        ),
        "attn_implementation": model_conf.attn_implementation,
        "thresholds": outcome.thresholds or (outcome.label_probabilities or {}).get("thresholds"),
        "max_length": conf.data.max_length,
        "prompt": vars(style) if generation else None,
        "metrics": jsonl_safe(outcome.kept),
    }
    return save_adapter(model, base.tokenizer, run_dir / ADAPTER_DIR, card=card)


def write_predictions(run_dir: Path, name: str, split: Split, predictions: Predictions, label_names: list[str]) -> Path:
    """One JSON object a row: id, text, gold and predicted labels, and probabilities or the written answer."""
    path = run_dir / PREDICTIONS_DIR / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in _prediction_rows(split, predictions, label_names):
            file.write(json.dumps(jsonl_safe(row), ensure_ascii=False) + "\n")
    return path


def _prediction_rows(split: Split, predictions: Predictions, label_names: list[str]) -> Iterable[dict[str, Any]]:
    def names(flags: Any) -> list[str]:
        return [label for label, flag in zip(label_names, flags, strict=True) if flag]

    for index, (row_id, text) in enumerate(zip(split.ids, split.texts, strict=True)):
        row: dict[str, Any] = {"id": row_id, "text": text}
        row["gold"] = names(split.labels[index]) if split.labelled else None
        row["predicted"] = names(predictions.labels[index])
        if predictions.probabilities is not None:
            values = predictions.probabilities[index]
            row["probabilities"] = {k: float(f"{v:.7g}") for k, v in zip(label_names, values, strict=True)}
        if predictions.texts is not None and predictions.valid is not None:
            row |= {"answer": predictions.texts[index], "valid": predictions.valid[index]}
        yield row


def describe_device(device: torch.device) -> str:
    """The device in words: `cpu (x86_64, 2 threads)`, `cuda:0 (NVIDIA H200)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()}, {torch.get_num_threads()} threads)"


def _scored(told: dict[str, Any] | None, *, test: bool) -> dict[str, Any] | None:
    """What a generator's label probabilities score; the test part's alone where it is looked at."""
    return told if told is None or test else {**told, "test": None}


def measured(conf: TrainConf, outcome: Outcome, corpus: Corpus, *, score_test: bool) -> dict[str, Any]:
    """The part of result.json that training and data decide."""
    objectives = [
        {"metric": metric, "direction": direction, **outcome.best[metric]}
        for metric, direction in zip(conf.objective.metrics, conf.objective.directions, strict=True)
    ]
    test = corpus.test
    scored = score_test and test is not None and test.labelled
    return {
        "status": "pruned" if outcome.pruned else "complete",
        "objective": objectives[0],
        "objectives": objectives,
        "selection": outcome.selection,
        "best": outcome.best,
        "kept": outcome.kept,
        "final": outcome.final,
        "test": outcome.test_metrics if scored else None,
        "per_label": outcome.per_label,
        "thresholds": outcome.thresholds,
        "label_probabilities": _scored(outcome.label_probabilities, test=scored),
        "num_steps": outcome.num_steps,
        "train_time_s": outcome.train_time_s,
        "evaluate_time_s": outcome.evaluate_time_s,
        "stopped_early": outcome.status == "stopped early",
        "data": {
            "name": corpus.name,
            "fingerprint": corpus.fingerprint,
            "validation_fingerprint": fingerprint(corpus.label_names, {"validation": corpus.validation}),
            "label_names": corpus.label_names,
            "multilabel": corpus.multilabel,
            "num_train": len(corpus.train),
            "num_validation": len(corpus.validation),
            "num_test": 0 if test is None else len(test),
            "report": corpus.report.as_dict(),
        },
    }
