"""What follows from the numbers: what to use, what matters, what is not known, and the command that would tell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from emotion_sweeps.report.factors import Factor
from emotion_sweeps.report.findings import Finding, NoiseEstimate, Recommendation, Winner
from emotion_sweeps.report.ranking import Ranking, metric_text
from emotion_sweeps.report.results import PRUNED, RunRow
from emotion_sweeps.report.wording import counted, listed

_KEYS = {
    "rank": "lora.r",
    "alpha": "lora.alpha",
    "alpha / rank": "lora.alpha_ratio",
    "dropout": "lora.dropout",
    "scheduler": "scheduler",
    "learning rate": "lora.learning_rate",
    "augmentation": "augment",
    "model": "model",
}
_MOST_CELLS = 200
_FEW_SEEDS = 3


def conclusion_of(
    winner: Winner | None,
    recommendation: Recommendation | None,
    findings: Sequence[Finding],
    noise: NoiseEstimate | None,
    factors: Sequence[Factor],
) -> tuple[str, ...]:
    """The sentences that a reader takes away."""
    if winner is None or recommendation is None:
        return ("No trial finished, so nothing follows.",)
    lines = [_use(winner, noise), _cheaper(recommendation), _matters(findings), _ties(findings), _unknown(findings)]
    lines.append(_next(winner, findings, noise, factors))
    return tuple(line for line in lines if line)


def _use(winner: Winner, noise: NoiseEstimate | None) -> str:
    what = f"Use {winner.name} ({', '.join(f'{k} {v}' for k, v in winner.settings if k in _KEYS)})"
    if not winner.ruling_possible:
        return f"{what}: it has the best value, and nothing here says whether it would have it again."
    if not winner.not_ruled_out:
        return f"{what}: no other configuration is within its noise."
    tied = len(winner.not_ruled_out) + 1
    return f"{what}: the best value of {tied:,} configurations that the noise does not tell apart."


def _cheaper(recommendation: Recommendation) -> str:
    alternative = recommendation.alternative
    return f"Where it must be cheap, use {alternative.name}." if alternative else ""


def _matters(findings: Sequence[Finding]) -> str:
    effects = [f for f in findings if f.kind == "effect"]
    names = list(dict.fromkeys(f.factor for f in effects))
    joint = [f.factor for f in findings if f.kind == "interaction"]
    parts = []
    if names:
        parts.append(f"Settings that made a difference beyond the noise: {listed(names)}.")
    if joint:
        parts.append(f"Settings that depend on each other: {listed(joint)}.")
    if not parts and any(f.kind == "tie" for f in findings):
        parts.append("No setting made a difference beyond the noise.")
    return " ".join(parts)


def _ties(findings: Sequence[Finding]) -> str:
    effects = {f.factor for f in findings if f.kind == "effect"}
    names = list(dict.fromkeys(f.factor for f in findings if f.kind == "tie" and f.factor not in effects))
    return f"No difference was seen by {listed(names)}: choose by cost." if names and effects else ""


def _unknown(findings: Sequence[Finding]) -> str:
    known = {f.factor for f in findings if f.kind in ("effect", "tie")}
    names = list(
        dict.fromkeys(f.factor for f in findings if f.kind in ("confounded", "unknown") and f.factor not in known)
    )
    return f"These runs carry no claim about {listed(names)}." if names else ""


def _next(winner: Winner, findings: Sequence[Finding], noise: NoiseEstimate | None, factors: Sequence[Factor]) -> str:
    """The sweep that would answer what is open."""
    confounded = {f.factor for f in findings if f.kind == "confounded"}
    untold = confounded | {f.factor for f in findings if f.kind == "unknown" and f.n_pairs} if confounded else set()
    crossed = [f for f in factors if f.name in untold and f.name in _KEYS and f.exact is None]
    cells = 1
    for factor in crossed:
        cells *= len(factor.levels)
    if len(crossed) > 1 and cells <= _MOST_CELLS:
        grid = " ".join(shlex.quote(f"{_KEYS[f.name]}={','.join(f.levels)}") for f in crossed)
        return (
            f"To tell {listed(f.name for f in crossed)} apart, cross them ({counted(cells, 'cell')}): "
            f"python -m emotion_sweeps.train -m {grid}"
        )
    if noise is None or (winner.not_ruled_out and len(winner.replicate_values) < _FEW_SEEDS):
        return f"To learn what the leading differences are worth, run more seeds: sweep.replicates={_FEW_SEEDS}."
    return ""


def caveats_of(
    ranking: Ranking, runs: Sequence[RunRow], winner: Winner | None, noise: NoiseEstimate | None, *, adjusted: bool
) -> tuple[str, ...]:
    """What limits the findings."""
    pruned = sum(run.status == PRUNED for run in runs)
    found = []
    if pruned:
        found.append(
            f"{counted(pruned, 'pruned run')} took no part in the comparisons: only runs that the pruner let finish "
            "did, which makes differences between settings look smaller than they are."
        )
    if adjusted:
        found.append(
            "Comparisons called adjusted assume that effects add up, and that the search did not choose settings for "
            "reasons that the model does not know."
        )
    optimism = _optimism(ranking, winner, noise)
    if optimism:
        found.append(optimism)
    if len(ranking.entries) > 1 and noise is not None:
        found.append(
            "Findings are kept right together: at most one study in twenty like this one states a false one. "
            "The ± are as wide as that takes; the intervals of the marginal means are each 95 % on their own."
        )
    return tuple(found)


def _optimism(ranking: Ranking, winner: Winner | None, noise: NoiseEstimate | None) -> str:
    """The winner was picked for its luck too: the expected largest of n draws of the noise."""
    if winner is None or noise is None or not winner.not_ruled_out or noise.deviation == 0:
        return ""
    from scipy.stats import norm  # type: ignore[import-untyped]

    number = len(winner.not_ruled_out) + 1
    largest = float(norm.ppf((number - 0.375) / (number + 0.25))) * noise.deviation
    largest /= len(winner.replicate_values) ** 0.5
    return (
        f"The first of {number:,} that the noise does not tell apart owes part of its "
        f"{metric_text(ranking.rule.metric)} to luck: trained again, expect it to be worse by up to {largest:.2g}."
    )
