"""What a study's trials say: which configurations are taken, what is left, who waits, and the board for a pruner.

Pure functions of a list of Optuna trials. Our marks on a trial (user attributes, readable in optuna-dashboard):

    overrides   what the trial adds to the config        identity    see identity.py
    status      failed | infeasible                      error       {"class", "message"}
    retry_of    number of the failed trial that this one runs again (which then counts no more)
    evaluation_I, replicate_J, replicate_J_evaluation_I   what was reported
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from emotion_sweeps.sweeps.leases import CLAIM_KEY
from emotion_sweeps.sweeps.pruning import Board

OVERRIDES, IDENTITY, STATUS, ERROR, RETRY_OF = "overrides", "identity", "status", "error", "retry_of"
ADOPTED = "taken_over_from"  # "<study> <number>": a finished trial of a predecessor
OUTSIDE = "outside_space"  # a trial whose values the space of this study does not hold
_EVALUATION = re.compile(r"^(?:replicate_(\d+)_)?evaluation_(\d+)$")


@dataclass(frozen=True)
class Cell:
    """One configuration that is to be run: a cell of the space, or a known one from outside."""

    params: dict[str, Any]
    overrides: tuple[str, ...]
    identity: str | None = None  # None: not composed yet


def is_running(trial: FrozenTrial) -> bool:
    """Whether the trial is not finished (waiting ones of other tools included)."""
    return not trial.state.is_finished()


def is_paused(trial: FrozenTrial) -> bool:
    """Whether the trial waits at a rung."""
    claim = trial.system_attrs.get(CLAIM_KEY)
    return trial.state == TrialState.RUNNING and claim is not None and claim["state"] == "paused"


def failed(trials: Sequence[FrozenTrial]) -> frozenset[int]:
    """Failed trials (not infeasible ones) that no later trial runs again."""
    again = {t.user_attrs.get(RETRY_OF) for t in trials}
    return frozenset(
        t.number
        for t in trials
        if t.state == TrialState.FAIL
        and t.user_attrs.get(STATUS) != "infeasible"
        and ADOPTED not in t.user_attrs
        and t.number not in again
    )


def counting(trials: Sequence[FrozenTrial], retry: Set[int]) -> list[FrozenTrial]:
    """The trials that count: without failed ones that were or will be run again, or failed in a predecessor."""
    again = {t.user_attrs.get(RETRY_OF) for t in trials} | set(retry)
    return [t for t in trials if t.number not in again and not (t.state == TrialState.FAIL and ADOPTED in t.user_attrs)]


def taken(trials: Sequence[FrozenTrial]) -> tuple[set[str], set[tuple[str, ...]]]:
    """Identities and overrides that some counting trial has."""
    identities = {str(t.user_attrs[IDENTITY]) for t in trials if IDENTITY in t.user_attrs}
    return identities, {tuple(t.user_attrs[OVERRIDES]) for t in trials if OVERRIDES in t.user_attrs}


def board(trials: Sequence[FrozenTrial], unstarted: int) -> Board:
    """What a pruner looks at: a failed trial that runs again as another one takes no second place."""
    trials = counting(trials, frozenset())
    return Board(
        histories={t.number: sorted(t.intermediate_values.items()) for t in trials},
        complete=frozenset(t.number for t in trials if t.state == TrialState.COMPLETE),
        ended=frozenset(t.number for t in trials if t.state.is_finished()),
        paused=frozenset(t.number for t in trials if is_paused(t)),
        unstarted=unstarted,
    )


def evaluation_steps(user_attrs: dict[str, Any], replicate: int | None) -> dict[int, int]:
    """Evaluation index by optimizer step of what a trial has reported."""
    found = {}
    for key, value in user_attrs.items():
        match = _EVALUATION.match(key)
        if match and match.group(1) == (None if replicate is None else str(replicate)):
            found[int(value["step"])] = int(match.group(2))
    return found


def evaluation_key(index: int, replicate: int | None) -> str:
    """The user attribute of one evaluation."""
    return f"evaluation_{index}" if replicate is None else f"replicate_{replicate}_evaluation_{index}"


def replicate_values(user_attrs: dict[str, Any]) -> dict[int, list[float]]:
    """Values of the finished replicates, by index."""
    matches = ((re.match(r"^replicate_(\d+)$", key), value) for key, value in user_attrs.items())
    return {int(m.group(1)): list(value) for m, value in matches if m}


def error_signature(trial: FrozenTrial) -> str:
    """Class and message of a failure without its numbers: alike for the same bug in different trials."""
    error = trial.user_attrs.get(ERROR) or {}
    message = re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", str(error.get("message")))
    return f"{error.get('class')}: {message}"


def identical_failures(trials: Sequence[FrozenTrial], limit: int) -> FrozenTrial | None:
    """The first of `limit` failures that are alike, when nothing but them has ended so far; else None."""
    ended = [t for t in trials if t.state.is_finished() and ADOPTED not in t.user_attrs]
    if len(ended) < limit or any(t.state != TrialState.FAIL for t in ended):
        return None
    alike = {error_signature(t) for t in ended[-limit:]}
    return ended[-limit] if len(alike) == 1 else None


def counts(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """Trials by status, for people."""
    found: dict[str, int] = {}
    for trial in trials:
        if trial.state == TrialState.FAIL:
            status = str(trial.user_attrs.get(STATUS, "failed"))
        else:
            status = "paused" if is_paused(trial) else trial.state.name.lower()
        found[status] = found.get(status, 0) + 1
    return found
