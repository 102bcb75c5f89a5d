"""From the ranking to everything below the board, in one pass over runs that are already read."""

from __future__ import annotations

from collections.abc import Sequence

from emotion_sweeps.report.across import across
from emotion_sweeps.report.baselines import BaselineScore
from emotion_sweeps.report.conclusion import caveats_of, conclusion_of
from emotion_sweeps.report.findings import Analysis
from emotion_sweeps.report.importances import importances_of
from emotion_sweeps.report.patterns import find_patterns
from emotion_sweeps.report.ranking import Ranking
from emotion_sweeps.report.results import RunRow
from emotion_sweeps.report.training_part import training_of
from emotion_sweeps.report.winner import recommend, winner_of


def analyse(ranking: Ranking, runs: Sequence[RunRow], baselines: Sequence[BaselineScore] = ()) -> Analysis:
    """Findings, importances, winner, recommendation, training, families, conclusion and caveats of a study.

    Args:
        ranking: of the complete ones among `runs`.
        runs: all of them; pruned and failed ones count in the costs.
    """
    entries, metric, minimize = ranking.entries, ranking.rule.metric, ranking.rule.minimize
    n_runs = sum(len(entry.runs) for entry in entries)
    if not entries:
        return Analysis(
            metric=metric,
            minimize=minimize,
            n_runs=0,
            n_configurations=0,
            noise=None,
            noise_text="No trial finished, so there is nothing to compare.",
            training=training_of(ranking, runs) if runs else None,
            conclusion=conclusion_of(None, None, (), None, ()),
        )
    patterns = find_patterns(entries, metric, minimize=minimize)
    winner = winner_of(ranking, patterns.noise)
    recommendation = recommend(ranking, patterns.noise)
    adjusted = any(f.kind in ("effect", "tie") and not f.n_pairs for f in patterns.findings)
    return Analysis(
        metric=metric,
        minimize=minimize,
        n_runs=n_runs,
        n_configurations=len(entries),
        noise=patterns.noise,
        noise_text=patterns.noise_text,
        findings=patterns.findings,
        marginals=patterns.marginals,
        importances=importances_of(patterns.factors, patterns.seen),
        winner=winner,
        recommendation=recommendation,
        training=training_of(ranking, runs),
        across=across(ranking, baselines),
        conclusion=conclusion_of(winner, recommendation, patterns.findings, patterns.noise, patterns.single),
        caveats=caveats_of(ranking, runs, winner, patterns.noise, adjusted=adjusted),
    )
