from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_sweeps.report.html import curves, slices, table, winner
from emotion_sweeps.report.html.parallel import make_parallel
from emotion_sweeps.report.html.parameters import varied_parameters
from emotion_sweeps.report.leaderboard import make_board
from emotion_sweeps.report.results import read_runs

Make = Callable[..., dict[str, Any]]
Write = Callable[..., Path]


def write_metrics(folder: Path, *records: dict[str, Any] | str) -> None:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")


def evaluation(step: int, loss: float | None, macro_f1: float = 0.5) -> dict[str, Any]:
    return {"kind": "eval", "split": "validation", "step": step, "epoch": step / 10, "loss": loss, "macro_f1": macro_f1}


def train(step: int, loss: float) -> dict[str, Any]:
    return {"kind": "train", "step": step, "epoch": step / 10, "loss": loss}


def board_of(folder: Path) -> Any:
    return make_board(read_runs([folder]).rows)


def many(make_result: Make, count: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        make_result(f"exp{i}", loss=0.3 + i / 1000, config={"lora": {"r": i}}, lora={"r": i}, trial_number=i, **changes)
        for i in range(count)
    ]


def test_curves_are_read_whatever_a_kill_left(make_result: Make, write_runs: Write) -> None:
    folder = write_runs(make_result())
    write_metrics(
        folder / "0",
        *(train(5, 0.9), evaluation(10, 0.7), {"kind": "memory", "phase": "load"}, "[1]", evaluation(20, None)),
        *(evaluation(30, 0.9), evaluation(30, 0.5)),  # told again after a resume
        {"kind": "eval", "split": "test", "step": 40, "epoch": 4.0, "loss": 0.1},
        '{"kind": "eval", "split": "valid',
    )
    (curve,) = curves.read_curves(board_of(folder))
    assert curve.train_loss == [(0.5, 0.9)]
    assert curve.loss == [(1.0, 0.7), (3.0, 0.5)]
    assert curve.macro_f1 == [(1.0, 0.5), (2.0, 0.5), (3.0, 0.5)]


def test_a_long_training_curve_keeps_its_mean(make_result: Make, write_runs: Write) -> None:
    folder = write_runs(make_result())
    write_metrics(folder / "0", *(train(step, step / 1000) for step in range(1, 1201)))
    (curve,) = curves.read_curves(board_of(folder))
    assert len(curve.train_loss) == 60
    assert np.mean([loss for _, loss in curve.train_loss]) == pytest.approx(np.mean(np.arange(1, 1201)) / 1000)


def test_of_many_trials_some_curves_are_read_and_it_is_said(make_result: Make, write_runs: Write) -> None:
    folder = write_runs(*many(make_result, 100), *many(make_result, 20, status="pruned"))
    for number in range(120):
        write_metrics(folder / str(number), train(1, 0.9), evaluation(10, 0.5))
    board = board_of(folder)
    read = curves.read_curves(board)
    places = [curve.place for curve in read]
    assert places[:24] == list(range(24)) and places[24] == 24 and places[47] == 99 and places[48:] == [None] * 8
    made = curves.make_curves(board, read)
    assert made is not None
    assert "56 of 120 trials are in this page: the first 24, 24 spread evenly" in made.note
    assert "8 of 20 pruned" in made.note
    loss = made.plots[0]
    assert made.views[0] == "first 8" and len(loss.views) == len(made.views) == 4
    assert all(len(view.visible) == len(loss.figure.data) == 2 * 56 for view in loss.views)
    assert sum(loss.views[0].visible) == 2 * 8


def test_without_curves_there_is_no_section(make_result: Make, write_runs: Write) -> None:
    board = board_of(write_runs(make_result()))
    assert curves.make_curves(board, curves.read_curves(board)) is None


def test_confusion_counts_like_sklearn(make_result: Make, write_runs: Write) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the counts are checked against scikit-learn")
    names = ["joy", "fear", "anger"]
    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    folder = write_runs(make_result(data={"label_names": names}))
    (folder / "0" / "predictions").mkdir()
    rows = [{"gold": [names[g]], "predicted": [names[p]]} for g, p in zip(gold, predicted, strict=True)]
    path = folder / "0" / "predictions" / "validation.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = read_runs([folder]).rows[0]
    assert winner.read_confusion(run) == metrics.confusion_matrix(gold, predicted).tolist()
    path.write_text(json.dumps({"gold": ["joy", "fear"], "predicted": ["joy"]}), encoding="utf-8")
    assert winner.read_confusion(run) is None, "several labels a text have no confusion matrix"


def test_labels_stand_by_frequency_and_broken_rows_are_left_out(make_result: Make, write_runs: Write) -> None:
    scores = {"precision": 0.5, "recall": 0.6, "f1": 0.55}
    rows = [{"label": "rare", "support": 2, **scores}, {"label": "often", "support": 9, **scores}, {"label": "x"}, 3]
    folder = write_runs(make_result(per_label=rows))
    found = winner.read_labels(read_runs([folder]).rows[0])
    assert [(row.label, row.support, row.scores) for row in found] == [
        ("often", 9, (0.5, 0.6, 0.55)),
        ("rare", 2, (0.5, 0.6, 0.55)),
    ]


def test_slices_and_parallel_coordinates_say_how_many_they_draw(make_result: Make, write_runs: Write) -> None:
    board = board_of(write_runs(*many(make_result, 1000)))
    parameters = varied_parameters(board.ranking.entries)
    made = slices.make_slices(board.ranking, parameters)
    assert made is not None and "800 of 1,000 trials are drawn" in made[1]
    assert len(made[0][0].figure.data[0].x) == 800
    lines = make_parallel(board.ranking, parameters)
    assert lines is not None and "240 of 1,000 trials are drawn" in lines[1]
    drawn = sum(trace.y.count(None) for trace in lines[0].figure.data[:-1])
    assert drawn == 240


def test_better_is_upwards_in_parallel_coordinates(make_result: Make, write_runs: Write) -> None:
    for metric in ("loss", "macro_f1"):
        results = many(make_result, 9)
        for result in results:
            result["objective"]["metric"] = metric
        folder = write_runs(*results, sweep=f"multirun/{metric}")
        board = board_of(folder)
        lines = make_parallel(board.ranking, varied_parameters(board.ranking.entries))
        assert lines is not None
        winners_height = lines[0].figure.data[-1].y[-2]
        heights = [
            trace.y[i] for trace in lines[0].figure.data for i in range(len(trace.y) - 1) if trace.y[i + 1] is None
        ]
        assert winners_height == max(heights) == 1


def test_links_are_relative_and_never_a_scheme(tmp_path: Path) -> None:
    assert table.link(tmp_path / "a" / "0", tmp_path / "a") == "./0/"
    assert table.link(tmp_path / "a" / "0", tmp_path / "out") == "../a/0/"
    evil = table.link(tmp_path / 'javascript:alert(1)" #?%', tmp_path)
    assert evil == "./javascript%3Aalert%281%29%22%20%23%3F%25/"


def test_every_run_has_a_row_with_its_status(make_result: Make, make_failure: Make, write_runs: Write) -> None:
    results = [*many(make_result, 3), make_result("p", status="pruned"), make_failure("f", "no disk")]
    unranked = make_result("u")
    unranked["best"] = {}
    folder = write_runs(*results, unranked)
    rows = table.rows(board_of(folder), folder)
    assert [row.status for row in rows] == ["complete"] * 4 + ["pruned", "failed"]
    assert [row.place for row in rows] == [1, 2, 3, None, None, None]
    assert table.counts(rows) == [("complete", 4), ("pruned", 1), ("failed", 1)]
    assert rows[-1].cells[-1].text == "RuntimeError: no disk"
    assert {len(row.cells) for row in rows} == {len(table.columns(board_of(folder)))}
    assert all(row.links for row in rows)


def test_replicates_are_one_row_with_a_link_each(make_result: Make, write_runs: Write) -> None:
    seeds = [make_result("r", loss=0.3 + seed / 100, config={"seed": seed}, seeds={"seed": seed}) for seed in range(3)]
    folder = write_runs(*seeds)
    (row,) = table.rows(board_of(folder), folder)
    assert row.links == ["./0/", "./1/", "./2/"]
    assert "±" in row.cells[2].text
