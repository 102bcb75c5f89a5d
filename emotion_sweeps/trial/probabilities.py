"""Label probabilities of a trial of label generation, with its kept weights; what it is asked for stands in `task`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.data.answers import answer_trie
from emotion_sweeps.data.corpus import Corpus
from emotion_sweeps.training.label_probabilities import ProbabilitySettings, with_probabilities
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.rows import PromptRows
from emotion_sweeps.trial.components import Base, Hardware, prompt_style


def probability_settings(conf: TrainConf) -> ProbabilitySettings:
    """How the config wants label probabilities to be found; draws are the same for all trials of a study."""
    task = conf.task
    return ProbabilitySettings(
        method=task.probabilities,
        max_exact_labels=task.max_exact_labels,
        tolerance=task.probability_tolerance,
        samples=task.probability_samples,
        seed=conf.data.split_seed,
    )


def add_probabilities(
    conf: TrainConf,
    outcome: Outcome,
    model: Any,
    base: Base,
    hardware: Hardware,
    corpus: Corpus,
    validation: PromptRows,
    test: PromptRows | None,
    emit: Callable[[dict[str, Any]], None],
) -> Outcome:
    """The outcome with label probabilities, where they are asked for.

    Args:
        model: holds the kept weights.
    """
    settings = probability_settings(conf)
    if settings.method == "none" or outcome.pruned:
        return outcome
    trie = validation.trie
    if trie is None:  # decoding is free, the scores are of valid answers all the same
        trie = answer_trie(base.tokenizer, prompt_style(conf, corpus.multilabel), corpus.label_names)
    model.eval()
    return with_probabilities(
        outcome,
        model,
        trie,
        validation,
        test,
        settings,
        tune_thresholds=conf.task.tune_thresholds,
        split_seed=conf.data.split_seed,
        pad_id=int(base.tokenizer.pad_token_id),
        batch_size=conf.hardware.eval_batch_size,
        device=hardware.device,
        precision=hardware.precision,
        on_record=emit,
    )
