"""What a study teaches, as plain values: every section below the board is one of these, and nothing here computes.

`analysis.analyse` makes an `Analysis`; `sections` writes it as markdown, the HTML page draws it. All numbers are in
the unit of `metric`. Texts that came from runs (levels, names) are as they were: whoever renders them escapes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["effect", "tie", "confounded", "interaction", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One statement about a factor, as strong as the runs allow.

    kind: effect (one level beats another), tie (no difference seen), confounded (never varies alone), interaction
    (the effect depends on another factor), unknown (constant, or nothing says how large the noise is).
    """

    factor: str  # "scheduler"; "rank x scheduler" for an interaction
    statement: str
    kind: Kind
    strength: str = ""  # "strong", "clear" (effects and interactions), "" (all others)
    effect: float | None = None  # by how much `better` is better, never negative for an effect
    interval: tuple[float, float] | None = None  # of `effect`, at the level that the finding was tested at
    n_pairs: int = 0  # runs or configurations matched on all other factors; 0: adjusted by the additive model
    better: str | None = None  # level, as text
    worse: str | None = None
    p_value: float | None = None  # adjusted for all tests of the study; found where <= 0.05


@dataclass(frozen=True)
class MarginalMean:
    """The mean of the metric at one level of a factor, over everything else that varied."""

    level: str
    mean: float
    low: float | None  # 95 % interval; None without a noise estimate
    high: float | None
    n: int  # runs


@dataclass(frozen=True)
class Marginals:
    """The marginal means of one factor, levels in their natural order."""

    factor: str
    means: tuple[MarginalMean, ...]
    adjusted: bool  # for the other factors by the additive model; False: plain averages of the runs
    binned: bool = False  # levels are ranges of a number that hardly ever repeats


@dataclass(frozen=True)
class Importance:
    """A factor's share of the variance that the factors explain; the shares sum to 1."""

    factor: str
    share: float


@dataclass(frozen=True)
class Importances:
    """All shares, largest first, and how they were computed."""

    method: str  # "fANOVA", "PED-ANOVA", "variance decomposition"; "" where there are none
    note: str  # on which trials, or why there are none
    shares: tuple[Importance, ...] = ()


@dataclass(frozen=True)
class NoiseEstimate:
    """How much one run varies when nothing is changed: a standard deviation and where it comes from."""

    deviation: float
    degrees: int
    source: str  # "12 replicated configurations", "residuals of an additive model"


@dataclass(frozen=True)
class Curve:
    """A run's evaluations on the validation part."""

    name: str
    metric: str
    epochs: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Winner:
    """The configuration that ranks first: how good, when, how steady, how sure."""

    name: str
    folder: Path
    settings: tuple[tuple[str, str], ...]  # rank, alpha, ... as texts
    best: float
    best_epoch: float | None
    final: float | None
    final_epoch: float | None
    stability: float | None  # range of the last evaluations, in the metric's unit
    stability_evaluations: int
    replicate_values: tuple[float, ...]  # one a seed, first to last; one value without replicates
    not_ruled_out: tuple[str, ...]  # other configurations that may be as good; () with `ruling_possible` False: unknown
    ruling_possible: bool
    lines: tuple[str, ...]  # the section, in sentences


@dataclass(frozen=True)
class Alternative:
    """A cheaper configuration that is within the noise of the winner."""

    name: str
    folder: Path
    value: float
    behind: float  # how much worse than the winner, negative when better
    trainable_parameters: int | None
    minutes: float | None
    settings: tuple[tuple[str, str], ...]
    overrides: str  # what to add to the command of best_config.yaml
    statement: str


@dataclass(frozen=True)
class Recommendation:
    """What to run, and what to run instead where it must be cheap."""

    statement: str
    alternative: Alternative | None
    no_alternative: str = ""  # why there is none


@dataclass(frozen=True)
class Training:
    """How the runs went: improvement, overfitting, time, and what pruned and failed trials cost."""

    lines: tuple[str, ...]
    curves: tuple[Curve, ...] = ()  # of the first few of the board
    total_hours: float | None = None
    pruned_hours: float | None = None
    failed_hours: float | None = None


@dataclass(frozen=True)
class FamilyRow:
    """One model and task at its best, or the baseline."""

    family: str  # "minilm, multilabel_head"
    winner: str  # the run's name; "" for the baseline
    validation_macro_f1: float | None
    test_macro_f1: float | None
    low: float | None  # bootstrap interval over the test texts, 95 %
    high: float | None
    num_test: int | None
    trainable_parameters: int | None
    minutes: float | None
    on_front: bool  # no other family is both better and cheaper
    note: str = ""


@dataclass(frozen=True)
class Across:
    """The families side by side."""

    rows: tuple[FamilyRow, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """Everything below the board."""

    metric: str
    minimize: bool
    n_runs: int
    n_configurations: int
    noise: NoiseEstimate | None
    noise_text: str  # where the noise estimate comes from, or why there is none
    findings: tuple[Finding, ...] = ()
    marginals: tuple[Marginals, ...] = ()
    importances: Importances = field(default_factory=lambda: Importances("", ""))
    winner: Winner | None = None
    recommendation: Recommendation | None = None
    training: Training | None = None
    across: Across = field(default_factory=Across)
    conclusion: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()

    def of_kind(self, *kinds: Kind) -> tuple[Finding, ...]:
        """The findings of some kinds, in the order of the report."""
        return tuple(finding for finding in self.findings if finding.kind in kinds)
