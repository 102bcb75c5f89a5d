"""How it is run: hardware, who listens, how a study is searched. Nothing here changes what one trial learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from emotion_sweeps.config import rules
from emotion_sweeps.errors import UserError


@dataclass
class HardwareConf:
    """Where and in which precision it runs; nothing here changes what is learned, only how it is computed."""

    name: str = MISSING
    device: str = "auto"  # auto, cpu, cuda, cuda:N
    precision: str = "auto"  # auto (bf16 where the hardware has it, else fp32), fp32, bf16, fp16
    micro_batch_size: int = 16  # texts a forward pass; the rest of the global batch is accumulated
    eval_batch_size: int = 64
    load_in_4bit: bool = False  # NF4 base through bitsandbytes
    device_map: str | None = None  # auto: spread a large base over the GPUs
    gradient_checkpointing: bool = False
    num_threads: int | None = None  # CPU threads; null: all cores

    def __post_init__(self) -> None:
        rules.one_of("hardware.precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        rules.at_least("hardware.micro_batch_size", self.micro_batch_size, 1)
        rules.at_least("hardware.eval_batch_size", self.eval_batch_size, 1)
        rules.at_least("hardware.num_threads", self.num_threads, 1)
        kind, _, index = self.device.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
            raise UserError(f"hardware.device must be auto, cpu, cuda or cuda:N, got {self.device}")


@dataclass
class TrackingConf:
    """Who listens to a run beside metrics.jsonl, which is always written."""

    wandb: bool = False
    wandb_mode: str = "auto"  # auto: online with an API key, else offline; online, offline, disabled
    project: str = "emotion_sweeps"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    tensorboard: bool = False

    def __post_init__(self) -> None:
        rules.one_of("tracking.wandb_mode", self.wandb_mode, ("auto", "online", "offline", "disabled"))


@dataclass
class SweepConf:
    """How a study is searched; never part of a trial's identity. The names under hydra.sweeper point here."""

    n_trials: int | None = None  # trials the study should reach in all; null: every cell of a finite space, else 20
    workers: int = 1  # processes on this machine that pull trials from the study
    sampler_seed: int = 0
    storage: str | None = None  # Optuna storage URL or journal file; null: study.db in the sweep's folder
    study_name: str | None = None  # null: from the search space and the fixed overrides
    fresh: bool = False  # start anew even where the same search has a study
    pruner: str = "none"  # none, asha, halving, hyperband, median, wilcoxon (over replicates)
    reduction_factor: int = 3  # of asha, halving and hyperband: at least one in so many trials goes on past a rung
    min_resource: int = 1  # evaluations before the first rung
    replicates: int = 1  # runs of one trial with different seeds; the trial's value is their mean
    max_retries: int = 1  # further attempts after a transient failure
    max_identical_failures: int = 3  # so many first trials failing alike stop the sweep
    keep: str = "best"  # whose adapter weights stay on disk: best, top_k, all
    keep_top_k: int = 3
    enqueue: Any = None  # known configs to run first: a list of {key: value}, or a file with one
    warm_start_from: str | None = None  # name, or storage URL#name, of a study to learn from
    lease_s: float = 60.0  # a trial whose worker is silent for longer is run again
    group_spaces: bool = False  # search each option of a swept group in the option's own search_space
    plan: bool = False  # print the resolved trials, their memory and time, and stop

    def __post_init__(self) -> None:
        rules.at_least("sweep.n_trials", self.n_trials, 1)
        rules.at_least("sweep.workers", self.workers, 1)
        rules.at_least("sweep.sampler_seed", self.sampler_seed, 0)
        rules.one_of("sweep.pruner", self.pruner, ("none", "asha", "halving", "hyperband", "median", "wilcoxon"))
        rules.at_least("sweep.reduction_factor", self.reduction_factor, 2)
        rules.at_least("sweep.min_resource", self.min_resource, 1)
        rules.at_least("sweep.replicates", self.replicates, 1)
        rules.at_least("sweep.max_retries", self.max_retries, 0)
        rules.at_least("sweep.max_identical_failures", self.max_identical_failures, 1)
        rules.one_of("sweep.keep", self.keep, ("best", "top_k", "all"))
        rules.at_least("sweep.keep_top_k", self.keep_top_k, 1)
        rules.positive("sweep.lease_s", self.lease_s)
