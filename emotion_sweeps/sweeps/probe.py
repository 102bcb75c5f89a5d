"""How long a trial takes: a few real training steps of one cell, in a folder that goes away.

    time of a trial = load + optimizer steps * step time + evaluations * validation texts * evaluation time of a text

The step time is a mean over batches of different lengths, after steps that pay for warming up; the corpus is the real
one with a shorter validation part. A base that would have to be downloaded is not probed.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.paths import METRICS_FILE, RESULT_FILE

PROBE_STEPS = 8
PROBE_SKIPPED = 2  # the first steps pay for warming up
PROBE_EVAL_TEXTS = 200


@dataclass(frozen=True)
class Probe:
    """Measured seconds: loading, one optimizer step, one evaluation of one text."""

    load_s: float
    step_s: float
    eval_text_s: float


@dataclass(frozen=True)
class Length:
    """A whole trial in optimizer steps, evaluations and texts an evaluation."""

    steps: int
    evaluations: int
    eval_texts: int


def weights_are_here(source: Any) -> bool:
    """Whether loading the base asks nothing of the network."""
    if source.is_local:
        return True
    from huggingface_hub import try_to_load_from_cache

    names = ("model.safetensors", "model.safetensors.index.json")
    cached = (try_to_load_from_cache(source.location, name, revision=source.revision) for name in names)
    return any(isinstance(path, str) for path in cached)


def trial_length(conf: TrainConf) -> Length:
    """How long a trial of `conf` is; its `evaluations` are what `make_pruner` calls `max_resource`."""
    from emotion_sweeps.training.plan import evaluation_steps, steps_per_epoch, total_steps
    from emotion_sweeps.trial import components

    corpus, training = components.corpus_of(conf.data), conf.training
    batch = training.global_batch_size
    steps = total_steps(len(corpus.train), batch, training.epochs, training.max_steps)
    evaluations = evaluation_steps(steps, steps_per_epoch(len(corpus.train), batch), training.evals_per_epoch)
    return Length(steps, len(evaluations), len(corpus.validation))


def trial_seconds(length: Length, probe: Probe) -> float:
    """Seconds that a whole trial takes by the probe's measurements."""
    return probe.load_s + length.steps * probe.step_s + length.evaluations * length.eval_texts * probe.eval_text_s


def probe_conf(conf: TrainConf) -> TrainConf:
    """`conf` cut to a few steps and one small evaluation, with no listeners."""
    texts = min(PROBE_EVAL_TEXTS, conf.data.max_eval_samples or PROBE_EVAL_TEXTS)
    training = replace(
        conf.training, max_steps=PROBE_STEPS, log_every=1, predict_test=False, evals_per_epoch=1, resume=False
    )
    tracking = replace(conf.tracking, wandb=False, tensorboard=False)
    return replace(conf, training=training, tracking=tracking, data=replace(conf.data, max_eval_samples=texts))


def run_probe(conf: TrainConf) -> Probe:
    """Train a few steps of `conf` and measure."""
    from emotion_sweeps.trial.place import TrialPlace
    from emotion_sweeps.trial.run import run_trial

    short = probe_conf(conf)
    with tempfile.TemporaryDirectory(prefix="emotion_sweeps_plan_") as folder, _quiet():
        place = TrialPlace(Path(folder) / "probe")
        place.run_dir.mkdir()
        run_trial(short, place)
        lines = (place.run_dir / METRICS_FILE).read_text(encoding="utf-8").splitlines()
        result = json.loads((place.run_dir / RESULT_FILE).read_text(encoding="utf-8"))
    records = [json.loads(line) for line in lines]
    return read_probe(records, float(result["wall_time_s"]), trial_length(short).eval_texts)


def read_probe(records: Sequence[dict[str, Any]], wall_s: float, eval_texts: int) -> Probe:
    """The measurements in a probe's records; `wall_s` is its whole time, loading and saving included."""
    trained = {r["step"]: r["time_s"] for r in records if r["kind"] == "train"}
    evaluated = [r for r in records if r["kind"] == "eval" and r["split"] == "validation"][-1]
    steps = sorted(trained)
    first, last = steps[min(PROBE_SKIPPED, len(steps) - 1) - 1], steps[-1]
    step_s = (trained[last] - trained[first]) / max(1, last - first)
    eval_s = max(0.0, evaluated["time_s"] - trained[last])
    return Probe(max(0.0, wall_s - evaluated["time_s"]), step_s, eval_s / max(1, eval_texts))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the probe's own log lines."""
    logger = logging.getLogger("emotion_sweeps")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
