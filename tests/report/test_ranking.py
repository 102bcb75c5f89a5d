from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from emotion_sweeps.report.ranking import rank

Make = Callable[..., dict[str, Any]]
Rows = Callable[..., list[Any]]


def names(rows: list[Any]) -> list[str]:
    return [entry.best_run.name for entry in rank(rows).entries]


def lora(r: int) -> dict[str, Any]:
    """A config of its own, so that runs are no replicates of each other."""
    return {"lora": {"r": r}}


def test_one_objective_task_weighting_and_model_are_ranked_by_best_validation_loss(
    make_result: Make, rows_of: Rows
) -> None:
    results = [
        make_result("b", loss=0.31, macro_f1=0.50, config=lora(1)),
        make_result("c", loss=0.32, macro_f1=0.60, config=lora(2)),
        make_result("a", loss=0.30, macro_f1=0.40, config=lora(3)),
    ]
    ranking = rank(rows_of(*results))
    assert [(e.rank, e.best_run.name) for e in ranking.entries] == [(1, "a"), (2, "b"), (3, "c")]
    assert ranking.rule.metric == "loss" and "objective" in ranking.rule.why


@pytest.mark.parametrize(
    ("change", "aspect"),
    [
        ({"task": "label_generation"}, "task"),
        ({"model": "roberta_base"}, "model"),
        ({"config": {"task": {"weighting": "none"}}}, "class weighting"),
        ({"config": {"task": {"weight_cap": 2.0}}}, "class weighting"),
        ({"config": {"task": {"label_smoothing": 0.1}}}, "label smoothing"),
        ({"data": {"label_names": ["joy", "anger"]}}, "labels"),
        ({"data": {"num_validation": 99}}, "validation texts"),
    ],
)
def test_trials_whose_losses_are_not_on_one_scale_are_ranked_by_macro_f1_and_the_reason_is_told(
    change: dict[str, Any], aspect: str, make_result: Make, rows_of: Rows
) -> None:
    rows = rows_of(
        make_result("low_loss", loss=0.1, macro_f1=0.50, config=lora(1)),
        make_result(
            "high_f1", loss=0.9, macro_f1=0.60, **{**change, "config": {**change.get("config", {}), **lora(2)}}
        ),
    )
    ranking = rank(rows)
    assert names(rows) == ["high_f1", "low_loss"] and ranking.rule.metric == "macro_f1"
    assert f"differ in {aspect}, so their loss is not on one scale" in ranking.rule.why


def test_what_does_not_change_the_scale_of_the_loss_keeps_the_loss_rule(make_result: Make, rows_of: Rows) -> None:
    rows = rows_of(
        make_result("a", loss=0.3, config={**lora(1), "task": {"weighting": "none", "weight_cap": 5.0}}),
        make_result("b", loss=0.2, config={**lora(2), "task": {"weighting": "none", "weight_cap": 9.0}}),
        make_result("c", loss=0.1, config=lora(3) | {"task": {"weighting": "none"}}, scheduler="cosine"),
    )
    assert rank(rows).rule.metric == "loss" and names(rows) == ["c", "b", "a"]


def test_an_objective_in_label_space_ranks_whatever_the_models(make_result: Make, rows_of: Rows) -> None:
    micro = {"objective": {"metric": "micro_f1", "direction": "maximize"}}
    rows = rows_of(
        make_result("a", **micro, best={"micro_f1": {"value": 0.4, "step": 1, "epoch": 1.0}}, model="roberta_base"),
        make_result("b", **micro, best={"micro_f1": {"value": 0.5, "step": 1, "epoch": 1.0}}),
    )
    assert rank(rows).rule.metric == "micro_f1" and names(rows) == ["b", "a"]


def test_different_objectives_are_ranked_by_macro_f1(make_result: Make, rows_of: Rows) -> None:
    rows = rows_of(
        make_result("a", macro_f1=0.5, objective={"metric": "loss"}),
        make_result("b", macro_f1=0.6, objective={"metric": "accuracy"}, config=lora(2)),
    )
    ranking = rank(rows)
    assert names(rows) == ["b", "a"] and "different objectives (accuracy and loss)" in ranking.rule.why


def test_failed_and_pruned_runs_are_not_ranked_and_do_not_decide_the_rule(
    make_result: Make, make_failure: Make, rows_of: Rows
) -> None:
    pruned = make_result("pruned", loss=0.01, status="pruned", model="roberta_base")
    rows = rows_of(make_result("a"), make_failure("broken"), pruned)
    assert names(rows) == ["a"] and rank(rows).rule.metric == "loss"


def test_a_run_without_the_metric_is_left_unranked(make_result: Make, rows_of: Rows) -> None:
    rows = rows_of(make_result("a"), make_result("b", best={"loss": None}, config=lora(2)))
    assert names(rows) == ["a"] and [run.name for run in rank(rows).unranked] == ["b"]


def test_equal_values_share_a_rank_in_the_order_of_their_numbers(make_result: Make, rows_of: Rows) -> None:
    losses = [0.3, 0.2, 0.3, 0.4, 0.3]
    results = [make_result(f"t{i}", loss=x, trial_number=i, config=lora(i)) for i, x in enumerate(losses)]
    ranks = [(e.rank, e.best_run.name) for e in rank(rows_of(*results)).entries]
    assert ranks == [(1, "t1"), (2, "t0"), (2, "t2"), (2, "t4"), (5, "t3")]


def test_the_order_does_not_depend_on_the_order_of_reading(make_result: Make, rows_of: Rows) -> None:
    rows = rows_of(*(make_result(f"t{i}", loss=0.3 + i % 4, trial_number=i, config=lora(i)) for i in range(12)))
    expected = names(rows)
    for seed in range(5):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert names(shuffled) == expected


def test_seeds_are_replicates_ranked_by_their_mean(make_result: Make, rows_of: Rows) -> None:
    def one(name: str, r: int, seed: int, loss: float) -> dict[str, Any]:
        config = {**lora(r), "seed": seed, "name": name, "tracking": {"tags": [name]}}
        return make_result(name, loss=loss, config=config, seeds={"seed": seed})

    rows = rows_of(
        one("lucky_s0", 8, 0, 0.20),
        one("lucky_s1", 8, 1, 0.40),
        one("good_s0", 16, 0, 0.29),
        one("good_s1", 16, 1, 0.27),
    )
    first, second = rank(rows).entries
    assert [run.name for run in first.runs] == ["good_s1", "good_s0"]
    assert first.mean("loss") == pytest.approx(0.28) and second.mean("loss") == pytest.approx(0.30)
    assert first.spread("loss") == pytest.approx(0.0141421356)  # sqrt(((.01)^2 + (.01)^2) / 1)
    assert second.best_run.name == "lucky_s0"


def test_the_same_seed_again_is_no_replicate(make_result: Make, rows_of: Rows) -> None:
    entries = rank(rows_of(make_result("once"), make_result("again"))).entries
    assert [len(entry.runs) for entry in entries] == [1, 1] and [entry.rank for entry in entries] == [1, 1]
