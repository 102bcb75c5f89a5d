"""The typed schema of a run: one dataclass a config group, each field with its meaning and unit.

Ranges are checked in `__post_init__`, which OmegaConf calls when a composed config is turned into objects
(`compose.to_conf`). The dataclasses stop at the builders (`trial.py`): inside, functions take plain values.
Defaults live in these classes or in the one-line choices of `conf/`; both are typed by them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from emotion_sweeps.config import rules
from emotion_sweeps.config.inputs import AugmentConf, DataConf
from emotion_sweeps.config.learning import (
    LOWER_IS_BETTER,
    METRICS,
    LoraConf,
    ModelConf,
    ObjectiveConf,
    SchedulerConf,
    TaskConf,
    TrainingConf,
)
from emotion_sweeps.config.running import HardwareConf, SweepConf, TrackingConf

__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "AugmentConf",
    "DataConf",
    "HardwareConf",
    "LoraConf",
    "ModelConf",
    "ObjectiveConf",
    "SchedulerConf",
    "SweepConf",
    "TaskConf",
    "TrackingConf",
    "TrainConf",
    "TrainingConf",
]


@dataclass
class TrainConf:
    """One run, whole."""

    model: ModelConf = MISSING
    task: TaskConf = MISSING
    lora: LoraConf = MISSING
    scheduler: SchedulerConf = MISSING
    data: DataConf = MISSING
    augment: AugmentConf = field(default_factory=AugmentConf)
    objective: ObjectiveConf = field(default_factory=ObjectiveConf)
    training: TrainingConf = MISSING
    hardware: HardwareConf = MISSING
    tracking: TrackingConf = field(default_factory=TrackingConf)
    sweep: SweepConf = field(default_factory=SweepConf)
    name: str | None = None  # null: made from the settings, as in exp3_r24_a48_d05_linear
    seed: int = 0  # of the adapter, the head, dropout and the order of batches

    def __post_init__(self) -> None:
        rules.at_least("seed", self.seed, 0)
