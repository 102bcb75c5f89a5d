"""What a reader must know before believing a ranking; each sentence is computed from the runs."""

from __future__ import annotations

from collections.abc import Sequence

from emotion_sweeps.report.baselines import BaselineScore
from emotion_sweeps.report.noise import seed_noise
from emotion_sweeps.report.ranking import Entry, Ranking, differing_aspects, metric_text, order
from emotion_sweeps.report.results import RunRow

_MANY = 5


def board_caveats(ranking: Ranking, baselines: Sequence[BaselineScore]) -> list[str]:
    """Every caveat that applies, the most important first."""
    entries = ranking.entries
    runs = [run for entry in entries for run in entry.runs]
    found = [
        _stand_ins(runs),
        _orders_disagree(ranking),
        _differences(ranking),
        _several_corpora(runs),
        _unranked(ranking),
        _loss_without_weights(entries, baselines),
    ]
    return [caveat for caveat in found if caveat]


def _stand_ins(runs: Sequence[RunRow]) -> str | None:
    stand_ins = [run for run in runs if run.stand_in]
    if not stand_ins:
        return None
    who = "Every trial" if len(stand_ins) == len(runs) else names_of(stand_ins)
    return f"{who} trained a stand-in with random weights: these scores say that the code runs, and nothing else."


def _orders_disagree(ranking: Ranking) -> str | None:
    """Whether loss and macro-F1 name different winners."""
    both = [e.runs for e in ranking.entries if e.mean("loss") is not None and e.mean("macro_f1") is not None]
    if len(both) < 2:
        return None
    by_loss, by_f1 = order(both, "loss"), order(both, "macro_f1")
    firsts = [{id(run) for entry in board if entry.rank == 1 for run in entry.runs} for board in (by_loss, by_f1)]
    if firsts[0] & firsts[1]:
        return None
    text = (
        f"The two orders disagree: by loss {by_loss[0].best_run.name} is first ({_values(by_loss[0])}), "
        f"by macro-F1 {by_f1[0].best_run.name} ({_values(by_f1[0])})."
    )
    if differing_aspects([run for runs in both for run in runs]):
        return f"{text} The losses of these trials are not on one scale."
    return f"{text} Loss asks how good the probabilities are, macro-F1 how good the decisions."


def _values(entry: Entry) -> str:
    return f"loss {entry.mean('loss'):.4f}, macro-F1 {entry.mean('macro_f1'):.3f}"


def _differences(ranking: Ranking) -> str | None:
    """What the distance between the trials is worth."""
    entries, metric = ranking.entries, ranking.rule.metric
    if len(entries) < 2:
        return None
    winner, second = entries[0], entries[1]
    noise = seed_noise(entries, metric)
    first_mean, second_mean = winner.mean(metric), second.mean(metric)
    assert first_mean is not None and second_mean is not None
    apart = f"{abs(first_mean - second_mean):.4f} apart in {metric_text(metric)}"
    if noise is None:
        return (
            f"Differences are single-run: no configuration ran with a second seed, so nothing says how much of them "
            f"is luck. First and second are {apart}; replicates decide (sweep.replicates=3)."
        )
    tied = [entry.best_run for entry in entries[1:] if noise.tied(winner, entry, metric)]
    spread = f"Between seeds {metric_text(metric)} varies by {noise.deviation:.4f} (standard deviation)"
    if not tied:
        return f"{spread}; no other trial is tied with the first. First and second are {apart}."
    return f"{spread}: {names_of(tied)} cannot be told from the first; take them as tied."


def _several_corpora(runs: Sequence[RunRow]) -> str | None:
    fingerprints = {run.fingerprint for run in runs}
    if len(fingerprints) < 2:
        return None
    return (
        f"The trials did not all see the same data ({len(fingerprints)} fingerprints): "
        "part of a difference may be the texts, not the settings."
    )


def _unranked(ranking: Ranking) -> str | None:
    if not ranking.unranked:
        return None
    return (
        f"{names_of(ranking.unranked)} finished without a validation {metric_text(ranking.rule.metric)} "
        "and could not be ranked."
    )


def _loss_without_weights(entries: Sequence[Entry], baselines: Sequence[BaselineScore]) -> str | None:
    """Trials with class weights are miscalibrated on purpose, the baseline is not."""
    weighted = any(
        isinstance(task := run.config.get("task"), dict) and task.get("weighting") not in (None, "none")
        for entry in entries
        for run in entry.runs
    )
    if not (weighted and baselines):
        return None
    return (
        "The trials weigh rare labels up and the baseline does not, so its loss is not comparable with theirs; "
        "compare macro-F1."
    )


def names_of(runs: Sequence[RunRow]) -> str:
    """The names of some runs, the first few of many."""
    names = [run.name for run in runs[:_MANY]]
    return ", ".join(names) + (f" and {len(runs) - _MANY} more" if len(runs) > _MANY else "")
