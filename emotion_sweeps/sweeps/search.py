"""What a study is to run, as its source needs to know it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from emotion_sweeps.sweeps.ledger import Cell


@dataclass(frozen=True)
class Search:
    """What a study is to run."""

    cells: tuple[Cell, ...] | None  # every one of them once; None: `propose` is asked
    total: int | None  # trials that the study should reach; None: all cells
    known: tuple[Cell, ...] = ()  # to run first
    retry: frozenset[int] = frozenset()  # failed trials of an earlier start, to run again
    metrics: tuple[str, ...] = ("value",)  # the objectives' names
    lease_s: float = 60.0
    max_identical_failures: int = 3
    replicates: int = 1
    run_id: str = ""  # of the command
    max_deaths: int = 3  # a trial that has cost so many workers of one run has failed


@dataclass(frozen=True)
class Proposal:
    """A new configuration by a sampler."""

    cell: Cell
    distributions: dict[str, Any]
    system_attrs: dict[str, Any] = field(default_factory=dict)


Propose = Callable[[Sequence[FrozenTrial], int, set[str]], Proposal | None]
