"""Run one trial: build its parts, train, and leave the run folder behind.

A failure, too, leaves a result.json (status failed, class and message); what was trained stays in checkpoints/ for the
next attempt. The test part is predicted for every finished trial, but scored only for single runs: in a sweep it is
looked at once, for the winner, by the report.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from emotion_sweeps.config.naming import trial_name
from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.data.corpus import Corpus
from emotion_sweeps.data.prompts import parse_answer
from emotion_sweeps.handle import TrialHandle, current_handle
from emotion_sweeps.lora.inject import ensure_fp32_trainable
from emotion_sweeps.models.heads import head_names
from emotion_sweeps.paths import CHECKPOINTS_DIR, RESULT_FILE
from emotion_sweeps.tracking.listeners import open_trackers
from emotion_sweeps.tracking.tracker import FAILED, PRUNED, RunInfo, Trackers, run_id_for
from emotion_sweeps.training.checkpoints import last_checkpoint
from emotion_sweeps.training.memory import memory_phase
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.settings import Settings
from emotion_sweeps.training.solo import train_generation, train_head
from emotion_sweeps.trial import components
from emotion_sweeps.trial.artifacts import describe_device, measured, write_adapter, write_predictions
from emotion_sweeps.trial.components import Base, Hardware
from emotion_sweeps.trial.finished import claim_checkpoints, finished_result
from emotion_sweeps.trial.place import TrialPlace
from emotion_sweeps.trial.probabilities import add_probabilities
from emotion_sweeps.trial.result import public_config, settings_of, versions, write_result

logger = logging.getLogger("emotion_sweeps")


def run_trial(conf: TrainConf, place: TrialPlace) -> float | dict[str, float]:
    """Train one trial in its place and return its best evaluation of the objective; by name where there are several.

    Raises:
        UserError: the input cannot be used, or the folder holds another finished trial.
    """
    done = value_if_finished(conf, place.run_dir)
    if done is not None:
        return done
    handle, started = current_handle(), time.perf_counter()
    number = place.number if handle.number is None else handle.number
    name = trial_name(conf, number, place.overrides)
    header = {"name": name, "trial_number": number, "started_at": datetime.now(UTC).isoformat(), **settings_of(conf)}
    memory: list[dict[str, Any]] = []
    trackers = open_listeners(conf)
    status, summary = FAILED, dict[str, Any]()
    try:
        emit = partial(emit_record, trackers, handle, memory)
        start = partial(trackers.start, run_info(conf, place, handle, name))
        result = _run(conf, place, handle, emit, start)
        wall_time_s = time.perf_counter() - started
        result |= {"wall_time_s": wall_time_s, "memory": memory, "peak_memory_gib": peak_gib(memory), "error": None}
        write_result(place.run_dir, {**header, **result, "versions": versions()})
        status, summary = result["status"], summary_of(result)
    except BaseException as error:
        write_failure(place.run_dir, header, error, time.perf_counter() - started, memory)
        raise
    finally:
        trackers.finish(status, summary)
    if not (status == PRUNED and handle.pausing):
        shutil.rmtree(place.run_dir / CHECKPOINTS_DIR, ignore_errors=True)
    say_summary(name, result, place.run_dir)
    return value_of(result)


def _run(
    conf: TrainConf, place: TrialPlace, handle: TrialHandle, emit: Callable[..., None], start: Callable[[], None]
) -> dict[str, Any]:
    """Build, train, save; the listeners are started once the input is known to be good."""
    corpus = components.corpus_of(conf.data)
    components.check_task_fits(conf.task.name, corpus)
    claim_checkpoints(conf, place.run_dir / CHECKPOINTS_DIR, corpus.fingerprint)
    base = components.find_base(conf)
    hardware = components.pick_hardware(conf.hardware, base.source.reference)
    with memory_phase("load", emit) as load:
        model = components.build_model(conf, base, hardware, corpus)
    start()
    emit({**load})
    trainable, total = model.get_nb_trainable_parameters()
    logger.info(
        f"{conf.model.name}: {trainable:,} of {total:,} parameters train; {describe_device(hardware.device)}, "
        f"{hardware.precision} ({hardware.reason}){', 4-bit base' if conf.hardware.load_in_4bit else ''}"
    )
    outcome = _train(conf, place, handle, emit, model, base, hardware, corpus)
    with memory_phase("save", emit):
        if not outcome.pruned:
            write_adapter(place.run_dir, model, conf, base, hardware, corpus, outcome)
        write_predictions(place.run_dir, "validation", corpus.validation, outcome.validation, corpus.label_names)
        if corpus.test is not None and outcome.test is not None:
            write_predictions(place.run_dir, "test", corpus.test, outcome.test, corpus.label_names)
    return {
        **measured(conf, outcome, corpus, score_test=not place.in_sweep),
        "trainable_parameters": trainable,
        "total_parameters": total,
        "device": describe_device(hardware.device),
        "precision": hardware.precision,
    }


def _train(
    conf: TrainConf,
    place: TrialPlace,
    handle: TrialHandle,
    emit: Callable[..., None],
    model: Any,
    base: Base,
    hardware: Hardware,
    corpus: Corpus,
) -> Outcome:
    settings = engine_settings(conf, hardware, emit, handle, place.run_dir / CHECKPOINTS_DIR)
    test = corpus.test if conf.training.predict_test else None
    if conf.task.name == "label_generation":
        style = components.prompt_style(conf, corpus.multilabel)
        encode = partial(
            components.prompt_rows,
            tokenizer=base.tokenizer,
            style=style,
            label_names=corpus.label_names,
            max_length=conf.data.max_length,
        )
        train, validation = encode(corpus.train), encode(corpus.validation)
        test_rows = None if test is None else encode(test)
        outcome = train_generation(
            model,
            base.tokenizer,
            train,
            validation,
            test_rows,
            label_names=corpus.label_names,
            parse=lambda answer: parse_answer(style, answer, corpus.label_names),
            label_smoothing=conf.task.label_smoothing,
            sequence_packing=conf.task.sequence_packing,
            after_init=ensure_fp32_trainable,
            **settings,
        )
        return add_probabilities(conf, outcome, model, base, hardware, corpus, validation, test_rows, emit)
    rows = partial(components.text_rows, tokenizer=base.tokenizer, max_length=conf.data.max_length)
    return train_head(
        model,
        rows(corpus.train),
        rows(corpus.validation),
        None if test is None else rows(test),
        label_names=corpus.label_names,
        multilabel=conf.task.name == "multilabel_head",
        head_modules=head_names(model),
        head_learning_rate=conf.lora.effective_head_learning_rate,
        pad_id=base.tokenizer.pad_token_id,
        weighting=conf.task.weighting,
        weight_cap=conf.task.weight_cap,
        label_smoothing=conf.task.label_smoothing,
        focal_gamma=conf.task.focal_gamma,
        tune_thresholds=conf.task.tune_thresholds,
        split_seed=conf.data.split_seed,
        **settings,
    )


def engine_settings(
    conf: TrainConf, hardware: Hardware, emit: Callable[..., None], handle: TrialHandle, checkpoints: Path
) -> Settings:
    """The engine's keyword settings of a config, with the checkpoint to go on from, if there is one."""
    training, scheduler = conf.training, conf.scheduler
    resume_from = last_checkpoint(checkpoints) if training.resume else None
    if resume_from is not None:
        logger.info(f"going on from {resume_from.name}")
    return Settings(
        seed=conf.seed,
        device=hardware.device,
        precision=hardware.precision,
        global_batch_size=training.global_batch_size,
        micro_batch_size=min(conf.hardware.micro_batch_size, training.global_batch_size),
        eval_batch_size=conf.hardware.eval_batch_size,
        epochs=training.epochs,
        max_steps=training.max_steps,
        learning_rate=conf.lora.learning_rate,
        weight_decay=conf.lora.weight_decay,
        optimizer=training.optimizer,
        max_grad_norm=training.max_grad_norm,
        scheduler=scheduler.name,
        warmup=scheduler.warmup_steps,
        num_cycles=scheduler.num_cycles,
        power=scheduler.power,
        final_ratio=scheduler.final_ratio,
        selection_metric=training.selection_metric,
        evals_per_epoch=training.evals_per_epoch,
        early_stopping_patience=training.early_stopping_patience,
        should_stop=handle.should_stop,
        log_every=training.log_every,
        gradient_checkpointing=conf.hardware.gradient_checkpointing,
        on_record=emit,
        checkpoint_dir=checkpoints,
        resume_from=resume_from,
    )


def open_listeners(conf: TrainConf) -> Trackers:
    """The trackers that a config asks for, not yet started."""
    tracking = conf.tracking
    listeners = [name for name in ("wandb", "tensorboard") if getattr(tracking, name)]
    return open_trackers(
        listeners,
        wandb_project=tracking.project,
        wandb_entity=tracking.entity,
        wandb_mode=tracking.wandb_mode,
    )


def run_info(conf: TrainConf, place: TrialPlace, handle: TrialHandle, name: str) -> RunInfo:
    """What the trackers are told about a run."""
    group = handle.study_name or place.group
    trial = str(place.run_dir.resolve()) if place.number is None else str(place.number)
    return RunInfo(
        name=name,
        group=group,
        run_dir=place.run_dir,
        run_id=run_id_for(group, trial),
        tags=(conf.model.name, conf.task.name, conf.data.name, *conf.tracking.tags),
        config=public_config(conf),
    )


def emit_record(trackers: Trackers, handle: TrialHandle, memory: list[dict[str, Any]], record: dict[str, Any]) -> None:
    """Hand a record to the listeners, and an evaluation to the study."""
    trackers.log(record)
    if record["kind"] == "memory":
        memory.append(record)
    if record["kind"] == "eval" and record["split"] == "validation":
        named = {
            k: v for k, v in record.items() if isinstance(v, (int, float)) and k not in ("step", "epoch", "time_s")
        }
        handle.report(record["step"], record["epoch"], named)


def peak_gib(memory: list[dict[str, Any]]) -> float:
    """The largest memory of any phase, of this process."""
    return max((record["peak_gib"] for record in memory), default=0.0)


def value_of(result: dict[str, Any]) -> float | dict[str, float]:
    """What a trial returns, read off its result: the objective's best, by name where there are several."""
    values = {one["metric"]: float(one["value"]) for one in result.get("objectives") or [result["objective"]]}
    return values if len(values) > 1 else next(iter(values.values()))


def value_if_finished(conf: TrainConf, run_dir: Path) -> float | dict[str, float] | None:
    """The value of the same trial, if this folder holds it finished; another finished trial is never written over."""
    result = finished_result(conf, run_dir)
    if result is None:
        return None
    logger.info(f"{result.get('name')} is finished already: {run_dir / RESULT_FILE}")
    return value_of(result)


def write_failure(
    run_dir: Path, header: dict[str, Any], error: BaseException, wall_time_s: float, memory: list[dict[str, Any]]
) -> None:
    """Leave a result.json that says what went wrong."""
    told = {"class": type(error).__name__, "message": str(error)}
    failed = {"status": FAILED, "error": told, "wall_time_s": wall_time_s, "memory": memory, "versions": versions()}
    write_result(run_dir, {**header, **failed})


def summary_of(result: dict[str, Any]) -> dict[str, Any]:
    """What dashboards show of a run: the kept evaluation, the bests, the cost."""
    best = {f"best/{metric}": where["value"] for metric, where in result["best"].items()}
    kept = {f"kept/{metric}": value for metric, value in result["kept"]["metrics"].items()}
    cost = {key: result[key] for key in ("trainable_parameters", "wall_time_s", "peak_memory_gib")}
    return {**best, **kept, **cost, "objective": result["objective"]["value"]}


def say_summary(name: str, result: dict[str, Any], run_dir: Path) -> None:
    """The end of a run in three lines: how it went, the test part, what was written."""
    loss, kept, test = result["best"]["loss"], result["kept"], result["test"]
    logger.info(
        f"{name}: {result['status']} in {result['wall_time_s']:.0f} s, "
        f"best validation loss {loss['value']:.4f} (epoch {loss['epoch']:g}), "
        f"macro-F1 {kept['metrics']['macro_f1']:.3f} with the kept weights (epoch {kept['epoch']:g})"
    )
    if test:
        logger.info(f"{name}: test macro-F1 {test['macro_f1']:.3f}, loss {test['loss']:.4f}")
    written = [entry.name for entry in sorted(run_dir.iterdir()) if not entry.name.startswith(".")]
    logger.info(f"{name}: wrote {', '.join(written)} in {run_dir}")
