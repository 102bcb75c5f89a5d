from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from emotion_sweeps.report.baselines import NAME, BaselineScore
from emotion_sweeps.report.leaderboard import Board, lora_text, make_board

Make = Callable[..., dict[str, Any]]
Rows = Callable[..., list[Any]]

# Five Gemma runs on an emotion corpus, ranked by best validation loss (a published table).
PUBLISHED = [
    ("exp1_r16_a64_d05_cosine_augmented", 1.3381, 16, 64, 0.05, "cosine"),
    ("exp3_r24_a64_d10_linear_augmented", 1.2727, 24, 64, 0.10, "linear"),
    ("exp4_r24_a48_d05_cosine_augmented", 1.3385, 24, 48, 0.05, "cosine"),
    ("exp5_r32_a64_d05_linear_augmented", 1.2738, 32, 64, 0.05, "linear"),
    ("exp8_r32_a48_d05_linear_augmented", 1.2876, 32, 48, 0.05, "linear"),
]


def lora(r: int) -> dict[str, Any]:
    return {"lora": {"r": r}}


def baseline(
    macro_f1: float, *, fingerprint: str = "a" * 64, loss: float = 0.4, micro_f1: float = 0.6
) -> BaselineScore:
    metrics = {"loss": loss, "macro_f1": macro_f1, "micro_f1": micro_f1}
    return BaselineScore(1, fingerprint, "demo", 1000, 0.6, metrics, None)


def experiments(board: Board) -> list[str]:
    return [row.experiment for row in board.rows]


def caveat(board: Board, word: str) -> str:
    return next((text for text in board.caveats if word in text), "")


@pytest.fixture
def published(make_result: Make, rows_of: Rows) -> Board:
    results = []
    for name, loss, r, alpha, dropout, scheduler in PUBLISHED:
        results.append(
            make_result(
                name,
                loss=loss,
                best={"macro_f1": None},
                kept={"metrics": {"macro_f1": None}},
                lora={"r": r, "alpha": alpha, "dropout": dropout},
                scheduler=scheduler,
                augment="augmented",
                model="gemma3_1b",
                data={"name": "emotions"},
                config={"lora": {"r": r, "alpha": alpha, "dropout": dropout}, "scheduler": {"name": scheduler}},
            )
        )
    return make_board(rows_of(*results))


def test_the_published_table_is_arrived_at(published: Board) -> None:
    assert [(row.medal, row.rank, row.experiment, row.loss) for row in published.rows] == [
        ("🥇", 1, "exp3_r24_a64_d10_linear_augmented", 1.2727),
        ("🥈", 2, "exp5_r32_a64_d05_linear_augmented", 1.2738),
        ("🥉", 3, "exp8_r32_a48_d05_linear_augmented", 1.2876),
        ("", 4, "exp1_r16_a64_d05_cosine_augmented", 1.3381),
        ("", 5, "exp4_r24_a48_d05_cosine_augmented", 1.3385),
    ]
    first = published.rows[0]
    assert (first.lora, first.scheduler, first.data) == (
        "r=24, alpha=64, dropout=0.10",
        "linear",
        "emotions + augmented",
    )
    assert published.headline == [
        "exp3_r24_a64_d10_linear_augmented ranks first of 5 trials by best validation loss, 1.2727."
    ]


def test_the_published_differences_are_called_single_run(published: Board) -> None:
    text = caveat(published, "single-run")
    assert "First and second are 0.0011 apart in loss" in text and "sweep.replicates" in text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"r": 24, "alpha": 64.0, "dropout": 0.1, "target_modules": "all-linear"}, "r=24, alpha=64, dropout=0.10"),
        ({"r": 8, "alpha": 2.5, "dropout": 0.125}, "r=8, alpha=2.5, dropout=0.125"),
        (
            {"r": 8, "alpha": 16, "dropout": 0, "target_modules": ["q", "v"], "use_rslora": True, "use_dora": True},
            "r=8, alpha=16, dropout=0.00, targets=q+v, rsLoRA, DoRA",
        ),
        ({"r": 8, "target_modules": "attention", "use_dora": False}, "r=8, targets=attention"),
        ({"r": "eight", "alpha": None, "dropout": "no"}, ""),
        ({}, ""),
    ],
)
def test_lora_settings_in_words(settings: dict[str, Any], text: str) -> None:
    assert lora_text(settings) == text


def three(make_result: Make, rows_of: Rows) -> list[Any]:
    return rows_of(
        make_result("a", loss=0.30, macro_f1=0.58, config=lora(1)),
        make_result("b", loss=0.31, macro_f1=0.52, config=lora(2)),
        make_result("c", loss=0.32, macro_f1=0.55, config=lora(3)),
    )


@pytest.mark.parametrize(
    ("macro_f1", "order"),
    [
        (0.60, [NAME, "a", "b", "c"]),
        (0.56, ["a", NAME, "b", "c"]),
        (0.53, ["a", "b", NAME, "c"]),  # two trials beat it, so it stands third
        (0.50, ["a", "b", "c", NAME]),
    ],
)
def test_the_baseline_stands_below_as_many_trials_as_beat_it_and_has_no_rank(
    macro_f1: float, order: list[str], make_result: Make, rows_of: Rows
) -> None:
    board = make_board(three(make_result, rows_of), baselines=[baseline(macro_f1)])
    assert experiments(board) == order
    (row,) = [row for row in board.rows if row.experiment == NAME]
    assert (row.rank, row.medal, row.macro_f1, row.loss) == (None, "", macro_f1, 0.4)
    assert [r.rank for r in board.rows if r.rank] == [1, 2, 3]


@pytest.mark.parametrize(
    ("macro_f1", "said"),
    [
        (0.60, "No trial beats the TF-IDF + logistic regression baseline on demo (macro-F1 0.600)"),
        (0.58, "No trial beats"),  # equal is not better
        (0.53, "2 of 3 trials beat the TF-IDF + logistic regression baseline on demo (macro-F1 0.530)."),
        (0.10, "3 of 3 trials beat"),
    ],
)
def test_how_many_trials_beat_the_baseline_is_said(
    macro_f1: float, said: str, make_result: Make, rows_of: Rows
) -> None:
    board = make_board(three(make_result, rows_of), baselines=[baseline(macro_f1)])
    assert board.headline[1].startswith(said)


def test_a_winner_that_loses_to_the_baseline_is_named_as_such(make_result: Make, rows_of: Rows) -> None:
    rows = rows_of(
        make_result("low_loss", loss=0.1, macro_f1=0.4, config=lora(1)),
        make_result("high_f1", loss=0.2, macro_f1=0.6, config=lora(2)),
    )
    board = make_board(rows, baselines=[baseline(0.5)])
    assert "1 of 2 trials beat" in board.headline[1] and "the one that ranks first does not" in board.headline[1]


def test_trials_that_beat_the_baseline_only_before_their_kept_weights_are_told(
    make_result: Make, rows_of: Rows
) -> None:
    board = make_board(
        rows_of(make_result("a", macro_f1=0.58, kept={"metrics": {"macro_f1": 0.45}})), baselines=[baseline(0.5)]
    )
    assert "1 of 1 trials beat" in board.headline[1]
    assert "1 of them only by an evaluation whose weights were not kept" in board.headline[1]


def test_only_trials_on_its_own_corpus_count_against_a_baseline(make_result: Make, rows_of: Rows) -> None:
    rows = rows_of(make_result("a", macro_f1=0.6), make_result("b", macro_f1=0.7, data={"fingerprint": "b" * 64}))
    board = make_board(rows, baselines=[baseline(0.5), baseline(0.9, fingerprint="b" * 64)])
    assert "1 of 1 trials beat" in board.headline[1] and "No trial beats" in board.headline[2]
    assert "2 fingerprints" in caveat(board, "did not all see the same data")


def test_a_ranking_by_another_score_places_the_baseline_by_it(make_result: Make, rows_of: Rows) -> None:
    micro = {"objective": {"metric": "micro_f1"}}
    results = [
        make_result(f"t{v}", macro_f1=0.1, best={"micro_f1": {"value": v}}, config=lora(int(10 * v)), **micro)
        for v in (0.7, 0.5)
    ]
    board = make_board(rows_of(*results), baselines=[baseline(0.5, micro_f1=0.6)])
    assert experiments(board) == ["t0.7", NAME, "t0.5"] and board.score_column == "micro_f1"


def test_the_two_orders_disagreeing_on_the_winner_is_said(make_result: Make, rows_of: Rows) -> None:
    low = make_result("low_loss", loss=0.30, macro_f1=0.50, config=lora(1))
    high = make_result("high_f1", loss=0.35, macro_f1=0.58, config=lora(2))
    text = caveat(make_board(rows_of(low, high)), "The two orders disagree")
    assert "by loss low_loss is first (loss 0.3000, macro-F1 0.500)" in text
    assert "by macro-F1 high_f1 (loss 0.3500, macro-F1 0.580)" in text


@pytest.mark.parametrize("macro_f1", [0.58, 0.59])
def test_orders_that_agree_on_the_winner_or_tie_there_are_not_mentioned(
    macro_f1: float, make_result: Make, rows_of: Rows
) -> None:
    first = make_result("a", loss=0.30, macro_f1=macro_f1, config=lora(1))
    rows = rows_of(first, make_result("b", loss=0.35, macro_f1=0.58, config=lora(2)))
    assert not caveat(make_board(rows), "disagree")


def seeded(make_result: Make, name: str, r: int, losses: Sequence[float]) -> list[dict[str, Any]]:
    return [
        make_result(f"{name}_s{seed}", loss=loss, config={**lora(r), "seed": seed}, seeds={"seed": seed})
        for seed, loss in enumerate(losses)
    ]


def test_entries_inside_the_noise_of_the_seeds_are_ties(make_result: Make, rows_of: Rows) -> None:
    rows = rows_of(
        *seeded(make_result, "a", 1, (0.30, 0.32, 0.31)),
        *seeded(make_result, "b", 2, (0.31, 0.33, 0.32)),
        *seeded(make_result, "c", 3, (0.50, 0.52, 0.51)),
    )
    board = make_board(rows)
    # s = .01 with 6 degrees of freedom; t(1 - .002 / 6, 6) = 6.4; 6.4 * .01 * sqrt(2/3) = .053: b (.01) yes, c (.20) no
    text = caveat(board, "Between seeds")
    assert "varies by 0.0100 (standard deviation)" in text and "b_s0 cannot be told from the first" in text
    assert "c_s0" not in text and not caveat(board, "single-run")
    assert board.rows[0].notes == ["mean of 3 seeds"] and board.rows[0].loss == pytest.approx(0.31)
    assert board.rows[0].minutes == pytest.approx(4.5)  # all three seeds


def test_differences_beyond_the_noise_are_no_ties(make_result: Make, rows_of: Rows) -> None:
    rows = rows_of(*seeded(make_result, "a", 1, (0.30, 0.32, 0.31)), *seeded(make_result, "c", 3, (0.50, 0.52, 0.51)))
    assert "no other trial is tied with the first" in caveat(make_board(rows), "Between seeds")


def test_notes_tell_what_was_kept(make_result: Make, rows_of: Rows) -> None:
    rows = rows_of(
        make_result(
            "a",
            macro_f1=0.58,
            best={"macro_f1": {"value": 0.58, "step": 240, "epoch": 4.0}},
            kept={"step": 60, "epoch": 1.0, "metrics": {"loss": 0.33, "macro_f1": 0.563, "invalid_answers": 0.03}},
            final={"step": 240, "epoch": 4.0, "metrics": {"loss": 0.35}},
            stopped_early=True,
            stand_in=True,
        )
    )
    board = make_board(rows)
    assert board.rows[0].notes == [
        "stand-in with random weights: its scores mean nothing",
        "kept epoch 1 of 4",
        "best macro-F1 (epoch 4) is not of the kept weights, which have 0.563",
        "stopped early",
        "3.0% of its answers name no valid label",
    ]
    assert caveat(board, "stand-in").startswith("Every trial")


def test_a_plain_run_needs_no_notes(make_result: Make, rows_of: Rows) -> None:
    assert make_board(rows_of(make_result("a"))).rows[0].notes == []


def test_only_failures_leave_nothing_to_rank(make_failure: Make, rows_of: Rows) -> None:
    board = make_board(rows_of(make_failure("a"), make_failure("b")))
    assert board.rows == [] and board.winner is None and [run.name for run in board.failed] == ["a", "b"]
    assert board.headline == ["No trial finished, so there is nothing to rank."]


def test_several_models_get_a_column(make_result: Make, rows_of: Rows) -> None:
    assert not make_board(three(make_result, rows_of)).several_models


def test_weighted_losses_are_not_held_against_the_baselines(make_result: Make, rows_of: Rows) -> None:
    board = make_board(three(make_result, rows_of), baselines=[baseline(0.5)])
    assert caveat(board, "not comparable")
    assert not caveat(make_board([], baselines=[]), "not comparable")
