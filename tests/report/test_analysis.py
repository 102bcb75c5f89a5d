from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_sweeps.report.analysis import analyse
from emotion_sweeps.report.baselines import BaselineScore
from emotion_sweeps.report.bootstrap import macro_f1_interval
from emotion_sweeps.report.build import build_report
from emotion_sweeps.report.findings import Analysis
from emotion_sweeps.report.ranking import rank
from emotion_sweeps.report.sections import analysis_sections
from emotion_sweeps.training.metrics import label_metrics

Make = Callable[..., dict[str, Any]]
Rows = Callable[..., list[Any]]
Write = Callable[..., Path]

# Five Gemma runs on an emotion corpus (a published table), with its winner's first and last validation loss.
PUBLISHED = [
    ("exp3_r24_a64_d10_linear_augmented", 1.2727, 24, 64, 0.10, "linear"),
    ("exp5_r32_a64_d05_linear_augmented", 1.2738, 32, 64, 0.05, "linear"),
    ("exp8_r32_a48_d05_linear_augmented", 1.2876, 32, 48, 0.05, "linear"),
    ("exp1_r16_a64_d05_cosine_augmented", 1.3381, 16, 64, 0.05, "cosine"),
    ("exp4_r24_a48_d05_cosine_augmented", 1.3385, 24, 48, 0.05, "cosine"),
]


def trial(make_result: Make, name: str, loss: float, *, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A trial whose config says what its settings say."""
    lora = {"r": 16, "alpha": 32, "dropout": 0.05, "learning_rate": 1e-4, **changes.pop("lora", {})}
    config = {
        "lora": {k: lora[k] for k in ("r", "alpha", "dropout", "learning_rate")},
        "scheduler": {"name": changes.get("scheduler", "linear")},
        "model": {"name": changes.get("model", "minilm")},
        "seed": seed,
    }
    return make_result(name, loss=loss, lora=lora, config=config, seeds={"seed": seed}, **changes)


def write_curve(folder: Path, losses: list[float]) -> None:
    records = [
        {"kind": "eval", "split": "validation", "step": 100 * e, "epoch": e, "loss": v} for e, v in enumerate(losses, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def statements(analysis: Analysis, factor: str) -> str:
    return " ".join(f.statement for f in analysis.findings if f.factor == factor)


@pytest.fixture
def published(make_result: Make, write_runs: Write, tmp_path: Path) -> Any:
    results = [
        trial(make_result, name, loss, lora={"r": r, "alpha": a, "dropout": d}, scheduler=s, augment="augmented",
              model="gemma3_1b", data={"name": "emotions"}, best={"macro_f1": None},
              kept={"metrics": {"macro_f1": None}})
        for name, loss, r, a, d, s in PUBLISHED
    ]  # fmt: skip
    folder = write_runs(*results)
    write_curve(folder / "0", [1.474 - 0.201 * i / 14 for i in range(15)])
    return build_report([folder], tmp_path / "out", lambda config: None, baseline=False)  # type: ignore[arg-type, return-value]


def test_the_published_winner_is_named_and_not_believed(published: Any) -> None:
    analysis = published.analysis
    assert [entry.best_run.name for entry in published.board.ranking.entries] == [row[0] for row in PUBLISHED]
    assert analysis.winner.name == "exp3_r24_a64_d10_linear_augmented" and not analysis.winner.ruling_possible
    assert "0.0011 ahead of exp5_r32_a64_d05_linear_augmented; without a noise estimate" in analysis.winner.lines[-1]
    assert analysis.noise is None and not analysis.of_kind("effect", "tie", "interaction")


def test_every_published_claim_is_one_that_the_runs_cannot_carry(published: Any) -> None:
    analysis = published.analysis
    kinds = {f.factor: f.kind for f in analysis.findings}
    assert {name: kinds[name] for name in ("rank", "dropout", "scheduler")} == dict.fromkeys(
        ("rank", "dropout", "scheduler"), "confounded"
    )
    assert "scheduler is confounded with rank" in statements(analysis, "scheduler")
    assert "dropout is confounded with rank" in statements(analysis, "dropout")
    assert "The one run with rank 16 also has alpha 64, dropout 0.05 and scheduler cosine" in statements(
        analysis, "rank"
    )
    assert "alpha 64 is ahead of alpha 48 by 0.0138 in loss over 1 paired run, but" in statements(analysis, "alpha")
    assert "Every run has augmentation augmented" in statements(analysis, "augmentation")
    (carry,) = [line for line in analysis.conclusion if "carry no claim" in line]
    assert all(name in carry for name in ("rank", "alpha", "dropout", "scheduler", "augmentation"))


def test_the_sweep_that_would_tell_is_named_and_covers_the_grid(published: Any) -> None:
    (line,) = [line for line in published.analysis.conclusion if "cross them" in line]
    assert "(24 cells)" in line
    assert line.endswith("-m lora.r=16,24,32 lora.alpha=48,64 lora.dropout=0.05,0.1 scheduler=cosine,linear")


def test_the_published_improvement_is_computed_right_and_no_larger_model_is_called_cheaper(published: Any) -> None:
    assert (
        "went from 1.4740 after epoch 1 to 1.2730 after epoch 15: 0.2010 (13.6%) better. Its best is its last"
        in (published.analysis.training.lines[0])
    )
    assert published.analysis.recommendation.alternative is None
    assert "### What these runs cannot tell" in published.text


def grid(make_result: Make, *, gap: float = 0.06, noise: float = 0.003, seeds: int = 1) -> list[dict[str, Any]]:
    """3 ranks x 2 schedulers x 2 dropouts; linear is better by `gap`, nothing else matters."""
    rng = np.random.default_rng(1)
    return [
        trial(make_result, f"r{r}_{s}_{d}_{seed}", 0.4 + gap * (s == "cosine") + noise * float(rng.normal()),
              seed=seed, lora={"r": r, "dropout": d}, scheduler=s, trainable_parameters=1000 * r)
        for r in (8, 16, 32) for s in ("linear", "cosine") for d in (0.0, 0.1) for seed in range(seeds)
    ]  # fmt: skip


def analysed(rows: list[Any], baselines: tuple[BaselineScore, ...] = ()) -> Analysis:
    return analyse(rank(rows), rows, baselines)


def test_an_effect_is_told_with_its_pairs_and_what_is_tied_is_called_so(make_result: Make, rows_of: Rows) -> None:
    analysis = analysed(rows_of(*grid(make_result)))
    (effect,) = analysis.of_kind("effect")
    assert (effect.better, effect.worse, effect.n_pairs) == ("linear", "cosine", 6)
    assert effect.statement.startswith("linear beats cosine by 0.0") and "over 6 paired runs" in effect.statement
    assert effect.interval is not None and effect.interval[0] < 0.06 < effect.interval[1]
    assert "rank 8, 16 and 32 are tied within the noise" in statements(analysis, "rank")
    assert analysis.winner is not None and "scheduler" in analysis.conclusion[2]


def test_the_cheaper_alternative_has_fewer_parameters_and_is_within_the_noise(make_result: Make, rows_of: Rows) -> None:
    results = grid(make_result, noise=0.01)
    for result in results:  # the largest rank is luckiest
        if result["name"] == "r32_linear_0.1_0":
            result["best"]["loss"]["value"] = 0.38
    analysis = analysed(rows_of(*results))
    assert analysis.winner is not None and analysis.winner.name == "r32_linear_0.1_0"
    alternative = analysis.recommendation and analysis.recommendation.alternative
    assert alternative and alternative.trainable_parameters == 8000 and alternative.name.startswith("r8_linear")
    assert "8,000 instead of 32,000 trainable parameters" in alternative.statement
    assert "lora.r=8" in alternative.overrides.split()


def test_the_smallest_winner_has_no_cheaper_alternative(make_result: Make, rows_of: Rows) -> None:
    results = [trial(make_result, f"r{r}", 0.3 + r / 1000, lora={"r": r}, trainable_parameters=r) for r in (8, 16, 32)]
    results += [trial(make_result, f"r{r}b", 0.3 + r / 1000, seed=1, lora={"r": r}, trainable_parameters=r)
                for r in (8, 16, 32)]  # fmt: skip
    recommendation = analysed(rows_of(*results)).recommendation
    assert (
        recommendation is not None
        and recommendation.alternative is None
        and "is cheaper" in (recommendation.no_alternative)
    )


def test_an_interaction_is_found_and_qualifies_the_main_effect(make_result: Make, rows_of: Rows) -> None:
    rng = np.random.default_rng(2)
    results = [
        trial(make_result, f"{r}{s}{d}{a}", 0.4 + (0.2 if (r == 8) == (s == "linear") else 0) + 0.1 * (s == "cosine")
              + 0.005 * float(rng.normal()), lora={"r": r, "dropout": d, "alpha": a}, scheduler=s)
        for r in (8, 16) for s in ("linear", "cosine") for d in (0.0, 0.05, 0.1) for a in (16, 32)
    ]  # fmt: skip
    analysis = analysed(rows_of(*results))
    (joint,) = analysis.of_kind("interaction")
    assert joint.factor == "rank x scheduler" and "which of them is better depends on it" in joint.statement
    assert "this is an average, it depends on rank" in statements(analysis, "scheduler")
    assert analysis.noise is not None and analysis.noise.deviation == pytest.approx(0.005, rel=0.5)


def test_alpha_that_follows_the_rank_is_confounded_with_it_and_compared_as_one(
    make_result: Make, rows_of: Rows
) -> None:
    results = [trial(make_result, f"{r}{s}", 0.4 + 0.001 * i, lora={"r": r, "alpha": 2 * r}, scheduler=s)
               for i, (r, s) in enumerate((r, s) for r in (8, 16, 32) for s in ("linear", "cosine"))]  # fmt: skip
    analysis = analysed(rows_of(*results))
    assert {f.factor for f in analysis.of_kind("confounded")} == {"rank", "alpha"}
    assert "alpha is confounded with rank: they never vary independently" in statements(analysis, "alpha")
    (marginals,) = [m for m in analysis.marginals if "rank" in m.factor]
    assert [one.level for one in marginals.means] == ["8 / 16", "16 / 32", "32 / 64"]


def test_the_noise_comes_from_seeds_where_there_are_enough(make_result: Make, rows_of: Rows) -> None:
    results = grid(make_result, seeds=3)
    values = np.array([r["best"]["loss"]["value"] for r in results]).reshape(12, 3)
    left = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    analysis = analysed(rows_of(*results))
    assert analysis.noise is not None and analysis.noise.degrees == 22
    assert analysis.noise.deviation == pytest.approx(np.sqrt((left**2).sum() / 22))
    assert analysis.n_runs == 36 and analysis.n_configurations == 12
    assert analysis.winner is not None and len(analysis.winner.replicate_values) == 3


def test_importances_name_what_moves_the_metric(make_result: Make, rows_of: Rows) -> None:
    results = [r for s in range(2) for r in grid(make_result)][:12]
    few = analysed(rows_of(*results)).importances
    assert few.method == "variance decomposition" and few.shares[0].factor == "scheduler"
    rng = np.random.default_rng(3)
    many = [
        trial(make_result, f"t{i}", float(0.4 + 0.1 * (np.log10(rate) + 3) ** 2), lora={"learning_rate": rate, "r": r})
        for i, (rate, r) in enumerate(zip(10 ** rng.uniform(-4, -2, 40), rng.choice([8, 16], 40).tolist(), strict=True))
    ]
    # Other runs of the same sweep would share its folder: read these on their own.
    rows = [replace(row, name=f"x{i}") for i, row in enumerate(rows_of_again(many))]
    found = analysed(rows).importances
    assert found.method == "fANOVA" and found.shares[0].factor == "learning rate" and found.shares[0].share > 0.8
    assert sum(one.share for one in found.shares) == pytest.approx(1.0) and "all 40 configurations" in found.note


def rows_of_again(results: list[dict[str, Any]]) -> list[Any]:
    from emotion_sweeps.report.results import _row

    return [_row(Path(f"/nowhere/{i}"), result) for i, result in enumerate(results)]


def test_the_bootstrap_is_that_of_resampled_rows() -> None:
    rng = np.random.default_rng(5)
    gold = (rng.random((300, 4)) < 0.4).astype(np.uint8)
    predicted = np.where(rng.random((300, 4)) < 0.8, gold, 1 - gold).astype(np.uint8)
    found = macro_f1_interval(predicted, gold)
    draws = [rng.integers(300, size=300) for _ in range(1000)]
    expected = np.quantile([label_metrics(predicted[d], gold[d])["macro_f1"] for d in draws], [0.025, 0.975])
    assert found == pytest.approx(tuple(expected), abs=0.006)
    assert found == macro_f1_interval(predicted, gold) and macro_f1_interval(predicted[:1], gold[:1]) is None


def test_families_are_scored_on_test_by_their_best_and_the_front_is_theirs(
    make_result: Make, write_runs: Write
) -> None:
    from emotion_sweeps.report.results import read_runs

    results = [
        make_result("small", macro_f1=0.5, model="minilm", wall_time_s=60, config={"x": 1}),
        make_result("small_worse", macro_f1=0.4, model="minilm", wall_time_s=60, config={"x": 2}),
        make_result("large", macro_f1=0.6, model="roberta", wall_time_s=600, config={"x": 3}),
        make_result("wasteful", macro_f1=0.3, model="qwen", wall_time_s=6000, config={"x": 4}),
    ]
    folder = write_runs(*results)
    right = {"small": 0.7, "small_worse": 0.0, "large": 0.9, "wasteful": 0.5}
    rng = np.random.default_rng(0)
    for number, result in enumerate(results):
        (folder / str(number) / "predictions").mkdir()
        rows = []
        for _ in range(200):
            gold = str(rng.choice(["joy", "fear"]))
            wrong = "fear" if gold == "joy" else "joy"
            rows.append({"gold": [gold], "predicted": [gold if rng.random() < right[result["name"]] else wrong]})
        (folder / str(number) / "predictions" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    baseline = BaselineScore(1, "a" * 64, "demo", 900, 6.0, {"macro_f1": 0.45}, {"macro_f1": 0.6}, (0.55, 0.65))
    found = analysed(read_runs([folder]).rows, (baseline,)).across
    assert [row.winner for row in found.rows] == ["large", "small", "", "wasteful"]
    assert [row.on_front for row in found.rows] == [True, True, True, False]
    assert found.rows[0].test_macro_f1 == pytest.approx(0.9, abs=0.06) and found.rows[0].num_test == 200
    low, high = found.rows[0].low, found.rows[0].high
    assert low is not None and high is not None and low < found.rows[0].test_macro_f1 < high
    assert "do not overlap" in " ".join(found.lines)


def test_what_pruned_and_failed_trials_cost_is_told(make_result: Make, make_failure: Make, rows_of: Rows) -> None:
    rows = rows_of(
        make_result("a", wall_time_s=3600), make_result("b", status="pruned", wall_time_s=900),
        {**make_failure("c"), "wall_time_s": 900}, make_failure("d"),
    )  # fmt: skip
    training = analysed(rows).training
    assert training is not None and training.total_hours == pytest.approx(1.5)
    assert "1 pruned run cost 15.0 min, 17% of all time." in training.lines
    assert "2 failed runs cost 15.0 min, 17% of all time." in training.lines


def test_overfitting_is_best_against_final(make_result: Make, rows_of: Rows) -> None:
    rows = rows_of(
        make_result("a", loss=0.30, final={"step": 240, "epoch": 4.0, "metrics": {"loss": 0.34}}),
        make_result("b", loss=0.31, config={"lora": {"r": 2}}),
    )
    training = analysed(rows).training
    assert training is not None
    assert "1 of 2 runs ended worse than their best evaluation in loss, by 0.0400 in the median" in training.lines[0]


@pytest.mark.parametrize("values", [[0.3], [0.3, 0.3], [0.3] * 24])
def test_studies_without_any_difference_are_said_to_have_none(
    values: list[float], make_result: Make, rows_of: Rows
) -> None:
    rows = rows_of(*(trial(make_result, f"t{i}", v, lora={"r": 8 + i % 4, "dropout": 0.01 * (i // 4)})
                     for i, v in enumerate(values)))  # fmt: skip
    analysis = analysed(rows)
    assert not analysis.of_kind("effect", "interaction") and analysis.conclusion
    assert "\n".join(line for part in analysis_sections(analysis) for line in part)


def test_a_study_with_only_failures_has_an_analysis_too(make_failure: Make, rows_of: Rows) -> None:
    analysis = analysed(rows_of(make_failure("a")))
    assert analysis.winner is None and analysis.conclusion == ("No trial finished, so nothing follows.",)


def test_settings_of_any_type_break_nothing(make_result: Make, rows_of: Rows) -> None:
    odd: list[Any] = ["=cmd()", None, True, [1, 2], {"a": {}}, float("inf"), "<b>", 10**400]
    rows = rows_of(*(trial(make_result, f"t{i}", 0.3 + i / 100, lora={"r": v, "dropout": v, "learning_rate": v})
                     for i, v in enumerate(odd)))  # fmt: skip
    text = "\n".join(line for part in analysis_sections(analysed(rows)) for line in part)
    assert "<b>" not in text


def test_torn_curves_are_left_out(make_result: Make, write_runs: Write) -> None:
    from emotion_sweeps.report.curves import curve_of
    from emotion_sweeps.report.results import read_runs

    folder = write_runs(make_result("a"))
    (row,) = read_runs([folder]).rows
    assert curve_of(row, "loss") is None
    write_curve(folder / "0", [0.5, 0.4, 0.45])
    path = folder / "0" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "eval", "split": "valid\n["eval"]\n')
    curve = curve_of(row, "loss")
    assert curve is not None and curve.values == (0.5, 0.4, 0.45) and curve.epochs == (1.0, 2.0, 3.0)
