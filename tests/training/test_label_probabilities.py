"""A generator's label probabilities scored as a head's are: the same numbers as a head with those probabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from emotion_sweeps.data.answers import AnswerTrie, answer_trie
from emotion_sweeps.data.prompts import PromptStyle, encode_generation
from emotion_sweeps.models.load import load_generator
from emotion_sweeps.models.sources import resolve_source
from emotion_sweeps.models.tokenizers import load_tokenizer
from emotion_sweeps.training.answer_scores import exact_marginals
from emotion_sweeps.training.label_probabilities import ProbabilitySettings, with_probabilities
from emotion_sweeps.training.metrics import label_metrics
from emotion_sweeps.training.outcome import Outcome, Predictions
from emotion_sweeps.training.rows import PromptRows
from emotion_sweeps.training.thresholds import cross_fitted_predictions, tune_thresholds

NAMES = ["anger", "joy", "fear"]
EXACT = ProbabilitySettings(method="exact", max_exact_labels=12, tolerance=1e-6, samples=16, seed=0)


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    source = resolve_source(path="unused", twin="qwen3_tiny")
    tokenizer = load_tokenizer(source, padding_side="left")
    options: dict[str, Any] = {"quantization": None, "device_map": None, "attn_implementation": "sdpa"}
    pad_id = tokenizer.pad_token_id
    return load_generator(source, dtype=torch.float32, pad_token_id=pad_id, **options).eval(), tokenizer


def rows_of(tokenizer: Any, count: int, *, multilabel: bool, seed: int = 0) -> PromptRows:
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 3)) < 0.5).astype(np.uint8)
    labels = labels if multilabel else np.eye(3, dtype=np.uint8)[rng.integers(0, 3, count)]
    style = PromptStyle("Labels: {labels}", multilabel=multilabel)
    encoded = encode_generation(tokenizer, style, [f"text {i} {seed}" for i in range(count)], labels, NAMES, 200)
    trie = answer_trie(tokenizer, style, NAMES)
    return PromptRows([str(i) for i in range(count)], encoded.prompt_ids, encoded.answer_ids, labels, trie)


def outcome_of(validation: PromptRows, test: PromptRows | None, status: str = "done") -> Outcome:
    fixed: dict[str, Any] = dict.fromkeys(("best", "selection", "kept", "final"), {})
    predictions = [None if rows is None else Predictions(rows.ids, rows.labels) for rows in (validation, test)]
    assert predictions[0] is not None
    return Outcome(
        **fixed,
        status=status,
        evaluations=[],
        per_label=[],
        thresholds=None,
        validation=predictions[0],
        test=predictions[1],
        test_metrics=None,
        num_steps=1,
        train_time_s=0.0,
        evaluate_time_s=0.0,
        memory=[],
    )


def scored(
    loaded: tuple[Any, Any], settings: ProbabilitySettings, *, multilabel: bool, status: str = "done"
) -> tuple[Outcome, PromptRows, PromptRows, list[dict[str, Any]]]:
    model, tokenizer = loaded
    validation = rows_of(tokenizer, 24, multilabel=multilabel)
    test = rows_of(tokenizer, 9, multilabel=multilabel, seed=1)
    records: list[dict[str, Any]] = []
    assert validation.trie is not None
    outcome = with_probabilities(
        outcome_of(validation, test, status),
        model,
        validation.trie,
        validation,
        test,
        settings,
        tune_thresholds=True,
        split_seed=3,
        pad_id=tokenizer.pad_token_id,
        batch_size=8,
        device=torch.device("cpu"),
        precision="fp32",
        on_record=records.append,
    )
    return outcome, validation, test, records


def test_several_labels_are_scored_as_a_heads(loaded: tuple[Any, Any]) -> None:
    outcome, validation, test, records = scored(loaded, EXACT, multilabel=True)
    assert validation.trie is not None and outcome.label_probabilities is not None
    where: dict[str, Any] = {"pad_id": loaded[1].pad_token_id, "batch_size": 8, "device": torch.device("cpu")}
    p = exact_marginals(loaded[0], validation.trie, validation.prompt_ids, **where).probabilities
    assert outcome.validation.probabilities is not None and outcome.test is not None
    np.testing.assert_allclose(outcome.validation.probabilities, p, atol=1e-5)
    told = outcome.label_probabilities
    clipped, gold = np.clip(p, 1e-6, 1 - 1e-6), validation.labels
    nll = -(gold * np.log(clipped) + (1 - gold) * np.log(1 - clipped)).mean()
    assert told["validation"]["loss"] == pytest.approx(nll, rel=1e-3)
    crossed = label_metrics(cross_fitted_predictions(p, gold, 3), gold)
    assert told["validation"]["macro_f1"] == pytest.approx(crossed["macro_f1"])
    assert told["validation"]["macro_f1_at_half"] == label_metrics((p >= 0.5).astype(np.uint8), gold)["macro_f1"]
    np.testing.assert_allclose(told["thresholds"], tune_thresholds(p, gold), atol=1e-5)
    q = outcome.test.probabilities
    assert q is not None
    wanted = label_metrics((q >= np.array(told["thresholds"])).astype(np.uint8), test.labels)
    assert told["test"]["macro_f1"] == pytest.approx(wanted["macro_f1"])
    notices = [record["text"] for record in records if record["kind"] == "notice"]
    assert len(notices) == 2 and all("all valid answers, error at most" in text for text in notices)
    assert {record["phase"] for record in records if record["kind"] == "memory"} == {"predict"}


def test_one_label_is_scored_as_a_softmax(loaded: tuple[Any, Any]) -> None:
    outcome, validation, _, _ = scored(loaded, EXACT, multilabel=False)
    p, told = outcome.validation.probabilities, outcome.label_probabilities
    assert p is not None and told is not None and told["thresholds"] is None
    np.testing.assert_allclose(p.sum(1), 1)
    assert told["validation"]["loss"] == pytest.approx(-np.log(p[validation.labels == 1]).mean())
    assert told["validation"]["accuracy"] == pytest.approx((p.argmax(1) == validation.labels.argmax(1)).mean())
    assert told["method"] == "exact" and told["validation"]["error_bound"] == 0


def test_sampling_states_its_error(loaded: tuple[Any, Any]) -> None:
    outcome, _, _, records = scored(loaded, replace(EXACT, method="sampled"), multilabel=True)
    told = outcome.label_probabilities
    assert told is not None and told["method"] == "sampled" and told["samples"] == 16
    assert 0 <= told["validation"]["standard_error_mean"] <= told["validation"]["standard_error_max"]
    assert 1 <= told["validation"]["effective_samples"] <= 16 + 1e-9
    assert any("16 constrained samples a text, standard error" in str(record.get("text")) for record in records)


@pytest.mark.parametrize(("method", "status"), [("none", "done"), ("exact", "pruned")])
def test_nothing_is_scored_unasked_or_for_pruned_trials(loaded: tuple[Any, Any], method: str, status: str) -> None:
    outcome, *_, records = scored(loaded, replace(EXACT, method=method), multilabel=True, status=status)
    assert outcome.label_probabilities is None and outcome.validation.probabilities is None and not records


@pytest.mark.parametrize(
    ("method", "labels", "multilabel", "wanted"),
    [
        ("exact", 12, True, "exact"),
        ("exact", 13, True, "sampled"),
        ("sampled", 3, True, "sampled"),
        ("sampled", 3, False, "exact"),
        ("exact", 150, False, "exact"),
        ("none", 3, True, "none"),
    ],
)
def test_the_method_follows_the_number_of_labels(method: str, labels: int, multilabel: bool, wanted: str) -> None:
    follow = {(i, j): [labels, j] for j in range(labels) for i in range(j)} if multilabel else {}
    trie = AnswerTrie([[j] for j in range(labels)], follow, [labels + 1] if multilabel else None, labels + 2)
    assert replace(EXACT, method=method).method_for(trie) == wanted
