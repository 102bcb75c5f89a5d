"""What a trial knows about itself while it trains: its evaluations, its bests, whether it should end.

Every metric's best is kept (the best by loss and the best by macro-F1 differ), the first of equals. The
selection metric decides which weights are kept and, with a patience, when to stop early. Pure Python, shared
by both engines; `state` and `load` carry it through a checkpoint as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from emotion_sweeps.errors import UserError
from emotion_sweeps.training.metrics import BETTER, is_better, metric_value

RUNNING, EARLY, PRUNED, DONE = "running", "stopped early", "pruned", "done"


class DivergedError(UserError):
    """The training loss is no longer a number."""


def diverged(value: float, step: int) -> DivergedError:
    """The failure of a trial whose loss is not finite at `step`."""
    return DivergedError(f"training diverged: loss is {value} at step {step}; lower lora.learning_rate")


class TrialProgress:
    """The evaluations of one trial and what follows from them.

    Args:
        selection_metric: chooses the weights that are kept.
        num_steps: steps of the whole trial.
        patience: evaluations without a better selection metric before it stops; None never stops.
        should_stop: asked after each evaluation but the last; True ends the trial as pruned.
    """

    def __init__(
        self,
        selection_metric: str,
        num_steps: int,
        *,
        patience: int | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.selection_metric, self.num_steps = selection_metric, num_steps
        self.patience, self.should_stop = patience, should_stop
        self.evaluations: list[dict[str, Any]] = []
        self.best: dict[str, dict[str, Any]] = {}
        self.status = RUNNING
        self.elapsed_s = 0.0  # since the trial began to train, what came before a resume included
        self.evaluate_s = 0.0  # of which evaluations

    def evaluated(self, step: int, epoch: float, metrics: Mapping[str, float]) -> bool:
        """Take in one evaluation; True when its weights are the best so far by the selection metric.

        Raises:
            DivergedError: the validation loss is not finite.
            UserError: the selection metric is not reported by this task.
        """
        if not math.isfinite(metrics["loss"]):
            raise diverged(metrics["loss"], step)
        metric_value(metrics, self.selection_metric)
        self.evaluations.append({"step": step, "epoch": epoch, "metrics": dict(metrics)})
        improved = [name for name in metrics if name in BETTER and self._improves(name, metrics[name])]
        self.best |= {name: {"value": metrics[name], "step": step, "epoch": epoch} for name in improved}
        self.status = self._decide(step)
        return self.selection_metric in improved

    def _improves(self, metric: str, value: float) -> bool:
        return metric not in self.best or is_better(metric, value, self.best[metric]["value"])

    def _decide(self, step: int) -> str:
        if step >= self.num_steps:
            return DONE
        if self.should_stop is not None and self.should_stop():
            return PRUNED
        best_step = self.best[self.selection_metric]["step"]
        since = sum(evaluation["step"] > best_step for evaluation in self.evaluations)
        return EARLY if self.patience is not None and since >= self.patience else RUNNING

    @property
    def kept(self) -> dict[str, Any]:
        """The evaluation whose weights are kept."""
        best_step = self.best[self.selection_metric]["step"]
        return next(evaluation for evaluation in self.evaluations if evaluation["step"] == best_step)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {
            "selection_metric": self.selection_metric,
            "evaluations": self.evaluations,
            "best": self.best,
            "status": self.status,
            "elapsed_s": self.elapsed_s,
            "evaluate_s": self.evaluate_s,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state.

        Raises:
            UserError: the checkpoint was written for another selection metric.
        """
        if state["selection_metric"] != self.selection_metric:
            raise UserError(
                f"training.resume: the checkpoint chose weights by {state['selection_metric']}, this run by "
                f"training.selection_metric={self.selection_metric}; use the same, or training.resume=false"
            )
        self.evaluations, self.best = list(state["evaluations"]), dict(state["best"])
        # Whoever resumes a trial that was told to stop wants it to go on: it had only been paused.
        self.status = RUNNING if state["status"] == PRUNED else state["status"]
        self.elapsed_s, self.evaluate_s = state["elapsed_s"], state["evaluate_s"]
