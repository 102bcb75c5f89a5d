"""`sweep.plan=true`: what a sweep would run, how much of each model trains, memory and time, before anything runs.

Trials are composed and told apart as the study would; parameters and memory come from the architectures alone
(`estimate.py`), times from a few training steps of one cell of each base (`probe.py`). What cannot be known on this
machine is `unknown`, with the reason below the table. With a pruner that halves, the share of the steps that it trains
does not depend on the values, and is taken off exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from emotion_sweeps.config.compose import to_conf
from emotion_sweeps.config.naming import trial_name
from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps.identity import identity
from emotion_sweeps.sweeps.probe import run_probe, trial_length, trial_seconds, weights_are_here

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from emotion_sweeps.sweeps.estimate import Memory, Parameters

SHOWN_TRIALS = 60
FIXED_SHARE = ("halving", "hyperband")  # pruners whose number of steps does not depend on the values
UNKNOWN = "unknown"
NO_WEIGHTS = "no time estimate: its weights are not on this machine, and a plan downloads none"


@dataclass(frozen=True)
class Planned:
    """One resolved trial."""

    name: str
    identity: str
    conf: TrainConf


@dataclass(frozen=True)
class BasePlan:
    """What the plan says of the trials of one base; None where it is not known, for the reason in `note`."""

    label: str
    num_trials: int
    smallest: Parameters | None = None  # the cell that trains least
    largest: Parameters | None = None
    memory: Memory | None = None  # of the cell that needs most
    trial_s: float | None = None  # mean over its trials, unpruned
    note: str = ""


def print_plan(
    *,
    study_name: str,
    cells: Sequence[Sequence[str]] | None,
    n_trials: int | None,
    done: Collection[str] | int,
    fixed: Sequence[str],
    compose: Callable[[list[str]], DictConfig],
    probe: bool = True,
    console: Console | None = None,
) -> None:
    """Print the plan of a study; trains a few steps for the time, keeps nothing.

    Args:
        cells: the overrides of every cell in the order in which they would start; None for a space that is sampled.
        n_trials: trials that the study should reach, None for every cell.
        done: identities of finished trials, or only how many there are.
        fixed: the overrides of all trials; they stand for the cells of a space that is sampled.
        compose: overrides to a config, as the study composes them.
        probe: measure the time.
    """
    from rich.console import Console

    console = console or Console()
    trials = [_planned(number, o, compose) for number, o in enumerate([fixed] if cells is None else cells)]
    distinct = {trial.identity: trial for trial in reversed(trials)}
    finished = done if isinstance(done, int) else sum(one in done for one in distinct)
    target = len(distinct) if n_trials is None else n_trials
    todo = max(0, target - finished)
    console.print(f"Study {study_name}: {_counts(cells, distinct, target)}, {finished} already done, {todo} to run")
    if cells is not None:
        console.print(_trial_table(trials, distinct, () if isinstance(done, int) else done))
    bases = [_plan_base(label, confs, probe) for label, confs in _by_base(distinct.values(), done).items()]
    console.print(_base_table(bases))
    for base in bases:
        if base.note:
            console.print(f"{base.label}: {base.note}", style="yellow")
    console.print(_whole(bases, trials[0].conf, target, todo))


def _planned(number: int, overrides: Sequence[str], compose: Callable[[list[str]], DictConfig]) -> Planned:
    composed = compose(list(overrides))
    conf = to_conf(composed)
    return Planned(trial_name(conf, number, overrides), identity(composed), conf)


def _counts(cells: Sequence[Sequence[str]] | None, distinct: Collection[str], target: int) -> str:
    if cells is None:
        return f"{target} trials, sampled from a space"
    said = f"{len(cells)} cells, {len(distinct)} distinct"
    return said if target == len(distinct) else f"{said}, {target} trials"


def _by_base(trials: Collection[Planned], done: Collection[str] | int) -> dict[str, list[TrainConf]]:
    """The configs of each base, task and data that are still to run (all, where it is not known which)."""
    groups: dict[str, list[TrainConf]] = {}
    for trial in sorted(trials, key=lambda trial: trial.name):
        if isinstance(done, int) or trial.identity not in done:
            conf = trial.conf
            four_bit = ", 4-bit" if conf.hardware.load_in_4bit else ""
            groups.setdefault(f"{conf.model.name}, {conf.task.name}, {conf.data.name}{four_bit}", []).append(conf)
    return groups


def _plan_base(label: str, confs: list[TrainConf], probe: bool) -> BasePlan:
    """Count, estimate and time the trials of one base."""
    from emotion_sweeps.trial import components

    plan = BasePlan(label, len(confs))
    try:
        base = components.find_base(confs[0])
        corpus = components.corpus_of(confs[0].data)
        measured = [_measure(conf, base, len(corpus.label_names)) for conf in _shapes(confs)]
    except UserError as error:
        return replace(plan, note=str(error))
    counts = sorted((count for _, count, _ in measured), key=lambda count: count.trainable)
    heaviest, _, memory = max(measured, key=lambda entry: entry[2].total)
    plan = replace(plan, smallest=counts[0], largest=counts[-1], memory=memory)
    if not probe:
        return plan
    return replace(plan, note=NO_WEIGHTS) if not weights_are_here(base.source) else _timed(plan, heaviest, confs)


def _timed(plan: BasePlan, heaviest: TrainConf, confs: list[TrainConf]) -> BasePlan:
    """`plan` with the mean time of its trials, measured on the heaviest."""
    try:
        probe = run_probe(heaviest)
    except (UserError, RuntimeError, OSError) as error:
        return replace(plan, note=f"no time estimate: the probe failed: {error}")
    return replace(plan, trial_s=mean(trial_seconds(trial_length(conf), probe) for conf in confs))


def _shapes(confs: list[TrainConf]) -> list[TrainConf]:
    """One config for each set of settings that parameters and memory depend on."""
    by_shape: dict[object, TrainConf] = {}
    for conf in confs:
        lora, hardware = conf.lora, conf.hardware
        shape = (lora.r, str(lora.target_modules), lora.use_dora, lora.bias, tuple(lora.modules_to_save))
        size = (conf.data.max_length, hardware.micro_batch_size, hardware.precision, lora.dropout > 0)
        by_shape.setdefault((shape, size), conf)
    return list(by_shape.values())


def _measure(conf: TrainConf, base: Any, num_labels: int) -> tuple[TrainConf, Parameters, Memory]:
    from emotion_sweeps.sweeps.estimate import count_parameters, estimate_memory, skeleton
    from emotion_sweeps.trial import components

    hardware = components.pick_hardware(conf.hardware, base.source.reference)
    model = skeleton(conf, base.source, kind=base.kind, pooling=base.pooling, num_labels=num_labels)
    memory = estimate_memory(
        model,
        precision=hardware.precision,
        load_in_4bit=conf.hardware.load_in_4bit,
        micro_batch_size=min(conf.hardware.micro_batch_size, conf.training.global_batch_size),
        max_length=conf.data.max_length,
        dropout=conf.lora.dropout,
        gradient_checkpointing=conf.hardware.gradient_checkpointing,
        device=hardware.device.type,
    )
    return conf, count_parameters(model), memory


def pruned_share(conf: TrainConf, num_trials: int, evaluations: int) -> float | None:
    """The share of all training that the sweep's pruner leaves, None where it depends on the values."""
    from emotion_sweeps.sweeps.pruning import make_pruner
    from emotion_sweeps.sweeps.replay import Curve, replay

    sweep = conf.sweep
    if sweep.pruner == "none":
        return 1.0
    if sweep.pruner not in FIXED_SHARE or sweep.replicates > 1:
        return None
    pruner = make_pruner(
        sweep.pruner,
        reduction_factor=sweep.reduction_factor,
        min_resource=sweep.min_resource,
        direction="minimize",
        max_resource=evaluations,
    )
    curve = Curve("any", tuple(range(1, evaluations + 1)), (0.0,) * evaluations)
    return replay([curve] * num_trials, pruner, direction="minimize", order_seed=0).share


def _trial_table(trials: Sequence[Planned], distinct: dict[str, Planned], done: Collection[str]) -> Any:
    from rich.table import Table

    table = Table("cell", "trial", "state", title="Trials")
    for number, trial in enumerate(trials[:SHOWN_TRIALS]):
        first = distinct[trial.identity]
        state = "already done" if trial.identity in done else "to run"
        table.add_row(str(number), trial.name, state if trial is first else f"the same as {first.name}")
    if len(trials) > SHOWN_TRIALS:
        table.add_row("...", f"{len(trials) - SHOWN_TRIALS} more", "")
    return table


def _base_table(bases: Sequence[BasePlan]) -> Any:
    """One column a base, so that it fits a narrow terminal."""
    from rich.table import Table

    table = Table("", *(plan.label for plan in bases), title="Models")
    described = [_described(plan) for plan in bases]
    for row in described[0] if described else ():
        table.add_row(row, *(column[row] for column in described))
    return table


def _described(plan: BasePlan) -> dict[str, str]:
    """The rows of the table for one base."""
    rows = {
        "trials to run": str(plan.num_trials),
        "parameters trained": UNKNOWN,
        "parameters in all": UNKNOWN,
    }
    if plan.smallest is not None and plan.largest is not None:
        low, high = f"{plan.smallest.trainable:,}", f"{plan.largest.trainable:,}"
        rows["parameters trained"] = low if low == high else f"{low} to {high}"
        rows["parameters in all"] = f"{plan.largest.total:,}"
    memory = plan.memory
    gib = (memory.base, memory.trained, memory.activations, memory.total) if memory else (None,) * 4
    for name, value in zip(("base", "adapter, head, optimizer", "activations", "in all"), gib, strict=True):
        rows[f"GiB {name}"] = UNKNOWN if value is None else f"{value:.2f}"
    return {**rows, "time of a trial": UNKNOWN if plan.trial_s is None else duration(plan.trial_s)}


def _whole(bases: Sequence[BasePlan], conf: TrainConf, target: int, todo: int) -> str:
    """The line on the whole sweep's time."""
    if not todo:
        return "Nothing is left to run"
    times = [plan.trial_s for plan in bases if plan.trial_s is not None]
    if not bases or len(times) < len(bases):
        return "Time of the sweep: unknown"
    mean_s = sum(plan.num_trials * (plan.trial_s or 0.0) for plan in bases) / sum(p.num_trials for p in bases)
    seconds = todo * mean_s
    said = f"Time of the sweep: {duration(seconds)} of training"
    share = pruned_share(conf, target, trial_length(conf).evaluations)
    if share is None:
        said += f" unpruned (what sweep.pruner={conf.sweep.pruner} saves depends on the values)"
    elif share < 1:
        seconds *= share
        said = f"{said} unpruned, {duration(seconds)} with sweep.pruner={conf.sweep.pruner} ({share:.0%} of the steps)"
    workers = conf.sweep.workers
    return said + (f"; about {duration(seconds / workers)} with sweep.workers={workers}" if workers > 1 else "")


def duration(seconds: float) -> str:
    """Seconds for people: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
