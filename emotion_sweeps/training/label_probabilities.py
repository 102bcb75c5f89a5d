"""Label probabilities of a finished generator, scored as a class head's are: NLL, tuned thresholds, macro-F1.

They are computed once, with the kept weights; evaluations during training decode greedily. A probability of 0 means
"less than what was looked for", so probabilities are kept half the tolerance (enumeration) or half a draw (sampling)
away from 0 and 1 before a logarithm is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emotion_sweeps.data.answers import AnswerTrie
from emotion_sweeps.training.answer_scores import Marginals, exact_marginals, sampled_marginals
from emotion_sweeps.training.evaluation import final_thresholds, validation_metrics
from emotion_sweeps.training.memory import memory_phase
from emotion_sweeps.training.metrics import classification_metrics
from emotion_sweeps.training.outcome import Outcome, Predictions
from emotion_sweeps.training.rows import PromptRows

EXACT, SAMPLED, NONE = "exact", "sampled", "none"
LEAST = 1e-6


@dataclass(frozen=True)
class ProbabilitySettings:
    """How label probabilities are found; see `task` in the config."""

    method: str  # exact, sampled, none
    max_exact_labels: int
    tolerance: float  # exact: what may be left out, as a share of the probability of all valid answers
    samples: int
    seed: int

    def method_for(self, trie: AnswerTrie) -> str:
        """Exact for single labels; for several where it is wanted and they are few enough."""
        if self.method == NONE:
            return NONE
        few = trie.num_labels <= self.max_exact_labels
        return EXACT if not trie.multilabel or (self.method == EXACT and few) else SAMPLED


def find_marginals(
    model: Any, trie: AnswerTrie, prompt_ids: list[list[int]], settings: ProbabilitySettings, **where: Any
) -> Marginals:
    """Label probabilities of every prompt, by the method that the settings choose."""
    if settings.method_for(trie) == SAMPLED:
        return sampled_marginals(model, trie, prompt_ids, samples=settings.samples, seed=settings.seed, **where)
    tolerance = settings.tolerance if trie.multilabel else 0.0
    return exact_marginals(model, trie, prompt_ids, tolerance=tolerance, **where)


def with_probabilities(
    outcome: Outcome,
    model: Any,
    trie: AnswerTrie,
    validation: PromptRows,
    test: PromptRows | None,
    settings: ProbabilitySettings,
    *,
    tune_thresholds: bool,
    split_seed: int,
    pad_id: int,
    batch_size: int,
    device: torch.device,
    precision: str,
    on_record: Callable[[dict[str, Any]], None],
) -> Outcome:
    """The outcome with probabilities beside its predictions, and what they score, in `label_probabilities`.

    Args:
        model: holds the kept weights, in eval mode.
        test: left alone where the outcome has no test predictions, as for pruned trials.
    """
    method = settings.method_for(trie)
    if method == NONE or outcome.pruned:
        return outcome
    begin, dtype = time.perf_counter(), torch.float16 if precision == "fp16" else torch.bfloat16

    def marginals(rows: PromptRows, name: str) -> Marginals:
        with torch.autocast(device.type, dtype, enabled=precision != "fp32"):
            found = find_marginals(
                model, trie, rows.prompt_ids, settings, pad_id=pad_id, batch_size=batch_size, device=device
            )
        text = f"label probabilities of {name}: {_error_line(found, method, settings.samples)}"
        on_record({"kind": "notice", "text": text})
        return found

    with memory_phase("predict", on_record):
        found = marginals(validation, "validation")
        logits = _logits(found.probabilities, trie.multilabel, method, settings)
        how: dict[str, Any] = {"multilabel": trie.multilabel, "tune": tune_thresholds}
        thresholds = final_thresholds(logits, validation.labels, **how)
        told: dict[str, Any] = {
            "method": method,
            "samples": settings.samples if method == SAMPLED else None,
            "thresholds": None if thresholds is None else [float(value) for value in thresholds],
            "validation": {
                **validation_metrics(logits, validation.labels, **how, seed=split_seed),
                **_errors(found, method),
            },
            "test": None,
        }
        scored = None
        if test is not None and outcome.test is not None:
            scored = marginals(test, "test")
            logits = _logits(scored.probabilities, trie.multilabel, method, settings)
            cuts: Any = 0.5 if thresholds is None else thresholds
            metrics = classification_metrics(logits, test.labels, multilabel=trie.multilabel, thresholds=cuts)
            told["test"] = {**metrics, **_errors(scored, method)}
    told["time_s"] = time.perf_counter() - begin
    return replace(
        outcome,
        validation=replace(outcome.validation, probabilities=found.probabilities),
        test=_beside(outcome.test, scored),
        label_probabilities=told,
    )


def _beside(predictions: Predictions | None, found: Marginals | None) -> Predictions | None:
    if predictions is None or found is None:
        return predictions
    return replace(predictions, probabilities=found.probabilities)


def _logits(
    probabilities: NDArray[np.float64], multilabel: bool, method: str, settings: ProbabilitySettings
) -> NDArray[np.float64]:
    """What a head with these probabilities would give: log-odds, or log-probabilities for single labels."""
    unseen = 1 / settings.samples if method == SAMPLED else settings.tolerance
    least = max(LEAST, unseen / 2) if multilabel else np.finfo(np.float64).tiny
    clipped = np.clip(probabilities, least, 1 - least if multilabel else 1)
    return np.asarray(np.log(clipped) - np.log1p(-clipped) if multilabel else np.log(clipped))


def _errors(found: Marginals, method: str) -> dict[str, float]:
    """The error of the probabilities: a bound, or standard errors."""
    worst = float(found.error.max(initial=0.0))
    if method == EXACT:
        return {"error_bound": worst}
    effective = float(np.median(found.effective))
    return {
        "standard_error_mean": float(found.error.mean()),
        "standard_error_max": worst,
        "effective_samples": effective,
    }


def _error_line(found: Marginals, method: str, samples: int) -> str:
    cost = f"{found.tokens / max(1, len(found.probabilities)):.0f} tokens a text"
    if method == EXACT:
        return f"all valid answers, error at most {found.error.max(initial=0.0):.1g}, {cost}"
    errors = _errors(found, method)
    return (
        f"{samples} constrained samples a text, standard error {errors['standard_error_mean']:.3f} on average and "
        f"{errors['standard_error_max']:.3f} at most, worth {errors['effective_samples']:.0f} of equal weight, {cost}"
    )
