"""The end of a sweep: counts, the best trial or the Pareto front, and the official `optimization_results.yaml`."""

from __future__ import annotations

import logging
from collections.abc import Set
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps import ledger
from emotion_sweeps.sweeps.keep import pareto_front
from emotion_sweeps.sweeps.objectives import Objectives

log = logging.getLogger(__name__)


def summarise(
    study: optuna.Study, sweep_dir: Path, objectives: Objectives, max_failure_rate: float, retry: Set[int]
) -> None:
    """Say how the study stands, and write its best.

    Raises:
        UserError: more trials failed than `max_failure_rate` allows.
    """
    trials = ledger.counting(study.get_trials(deepcopy=False), retry)
    found = ledger.counts(trials)
    log.info(
        "study %s: %s",
        study.study_name,
        ", ".join(f"{n} {status}" for status, n in sorted(found.items())) or "no trials",
    )
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    if complete:
        OmegaConf.save(OmegaConf.create(_results(study, complete, objectives)), sweep_dir / "optimization_results.yaml")
    bad = found.get("failed", 0) + found.get("infeasible", 0)
    if bad:
        log.warning("%d of %d trials failed or are infeasible; their folders hold error.txt", bad, len(trials))
    if trials and bad / len(trials) > max_failure_rate:
        raise UserError(f"hydra.sweeper.max_failure_rate={max_failure_rate}: {bad} of {len(trials)} trials failed")


def _results(study: optuna.Study, complete: list[FrozenTrial], objectives: Objectives) -> dict[str, Any]:
    if len(objectives.metrics) > 1:
        front = pareto_front(complete, study.directions)
        log.info("Pareto front: trials %s", ", ".join(str(t.number) for t in front))
        return {
            "name": "study",
            "solutions": [{"number": t.number, "params": dict(t.params), "values": list(t.values)} for t in front],
        }
    sign = -1.0 if objectives.directions[0] == "maximize" else 1.0
    best = min(complete, key=lambda t: (sign * t.values[0], t.number))
    log.info(
        "best: trial %d, %s %.6g (%s)",
        best.number,
        objectives.metrics[0],
        best.values[0],
        " ".join(best.user_attrs.get(ledger.OVERRIDES, ())),
    )
    return {
        "name": "study",
        "best_number": best.number,
        "best_params": dict(best.params),
        "best_value": best.values[0],
    }
