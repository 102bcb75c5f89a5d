"""What running trials report, kept in the study: evaluations with their metrics, and finished replicates."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage

from emotion_sweeps.errors import UserError, did_you_mean
from emotion_sweeps.sweeps import ledger
from emotion_sweeps.sweeps.objectives import UNNAMED
from emotion_sweeps.sweeps.source import Claim


class Reports:
    """Writes the reports of trials into their study; may be called from several threads."""

    def __init__(self, storage: BaseStorage, metrics: Sequence[str]) -> None:
        self._storage, self._metrics = storage, tuple(metrics)
        self._steps: dict[tuple[int, int | None, int], dict[int, int]] = {}
        self._lock = threading.Lock()

    def evaluation(self, claim: Claim, trial_id: int, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Keep one evaluation: its metrics as a user attribute, its objective as Optuna's intermediate value."""
        value = self._objective(metrics)
        with self._lock:
            steps = self._reported_steps(claim, trial_id)
            index = steps.setdefault(step, len(steps) + 1)
        evaluation = {"step": step, "epoch": epoch, "metrics": {k: _json_number(v) for k, v in metrics.items()}}
        try:
            self._storage.set_trial_user_attr(trial_id, ledger.evaluation_key(index, claim.replicate), evaluation)
            if claim.replicate is None and len(self._metrics) == 1:
                self._storage.set_trial_intermediate_value(trial_id, index, value)
        except UpdateFinishedTrialError:
            pass  # another worker took the trial over and finished it; the heartbeat tells this one

    def replicate(self, trial_id: int, index: int, values: Sequence[float], *, own: bool) -> None:
        """Keep one replicate's values; with one objective its own value, or the mean so far, for the pruner."""
        self._storage.set_trial_user_attr(trial_id, f"replicate_{index}", list(values))
        if len(values) == 1:
            done = ledger.replicate_values(self._storage.get_trial(trial_id).user_attrs)
            value = values[0] if own else sum(v[0] for v in done.values()) / len(done)
            self._storage.set_trial_intermediate_value(trial_id, index + 1, float(value))

    def _objective(self, metrics: Mapping[str, float]) -> float:
        missing = [name for name in self._metrics if name not in metrics and not name.startswith(UNNAMED)]
        if missing:
            raise UserError(
                f"objective.metric={missing[0]}: this trial reports {', '.join(sorted(metrics))}"
                f"{did_you_mean(missing[0], metrics)}; take one of them"
            )
        name = self._metrics[0]
        return float(metrics[name] if name in metrics else next(iter(metrics.values()), math.nan))

    def _reported_steps(self, claim: Claim, trial_id: int) -> dict[int, int]:
        """Evaluation index by step, those of earlier attempts included: a step reported again keeps its index."""
        key = (claim.number, claim.replicate, claim.attempt)
        if key not in self._steps:
            attrs = self._storage.get_trial(trial_id).user_attrs
            self._steps[key] = ledger.evaluation_steps(attrs, claim.replicate)
        return self._steps[key]


def _json_number(value: Any) -> Any:
    """Non-finite numbers as text: JSON has none."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
