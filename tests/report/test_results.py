from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emotion_sweeps.errors import UserError
from emotion_sweeps.report.results import Point, latest_sweep, read_runs


def test_a_result_becomes_a_row(make_result: Callable[..., dict], rows_of: Callable[..., list]) -> None:
    final = {"step": 180, "epoch": 3.0, "metrics": {"loss": 0.4}}
    (row,) = rows_of(make_result("exp3_r24", loss=0.31, macro_f1=0.58, final=final, seeds={"seed": 7}))
    assert (row.name, row.status, row.number, row.model, row.task) == (
        "exp3_r24",
        "complete",
        0,
        "minilm",
        "multilabel_head",
    )
    assert row.best_loss == Point(0.31, 120, 2.0) and row.best_macro_f1 == Point(0.58, 120, 2.0)
    assert row.final["loss"] == Point(0.4, 180, 3.0) and row.kept["macro_f1"] == Point(0.58, 120, 2.0)
    assert row.seed == 7 and row.trainable_parameters == 1234567 and row.data_name == "demo"


def test_half_a_result_is_a_problem_wherever_it_was_cut_and_the_others_are_read(
    make_result: Callable[..., dict], write_runs: Callable[..., Path]
) -> None:
    folder = write_runs(make_result("whole"), make_result("torn"))
    torn = folder / "1" / "result.json"
    content = torn.read_bytes()
    for cut in (0, 1, len(content) // 2, len(content) - 1):
        torn.write_bytes(content[:cut])
        runs = read_runs([folder])
        assert [row.name for row in runs.rows] == ["whole"]
        (problem,) = runs.problems
        assert str(torn) in problem and "not whole JSON" in problem and "left out" in problem


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1, 2]", "not a JSON object"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"{}", "status must be one of complete, pruned, failed, got 'None'"),
        (b'{"status": "done"}', "got 'done'"),
        (b"[" * 100_000, "cannot be read|not whole JSON"),
    ],
)
def test_other_files_called_result_json_are_problems(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(content)
    runs = read_runs([tmp_path])
    assert runs.rows == []
    assert len(runs.problems) == 1 and re.search(said, runs.problems[0])


@pytest.mark.parametrize("wrong", [None, [], "text", 3, {"value": "text"}, {"value": None}, {"value": True}, {"x": 1}])
def test_values_of_other_types_are_missing_and_no_crash(
    wrong: Any, make_result: Callable[..., dict], write_runs: Callable[..., Path]
) -> None:
    keys = ("objective", "best", "kept", "final", "lora", "config", "data", "seeds", "error", "wall_time_s", "stand_in")
    results = []
    for key in (*keys, "model", "scheduler", "trainable_parameters", "trial_number"):
        results.append({**make_result(key), key: wrong})
    runs = read_runs([write_runs(*results)])
    assert [row.name for row in runs.rows] == sorted((r["name"] for r in results), key=_by_folder(results))
    told = [p for p in runs.problems if "holds no validation metrics" in p]
    assert len(told) == 1  # of the run whose `best` is wrong


def _by_folder(results: list[dict]) -> Callable[[str], str]:
    places = {r["name"]: str(i) for i, r in enumerate(results)}
    return lambda name: places[name]


def test_nan_in_a_result_is_a_missing_value(make_result: Callable[..., dict], write_runs: Callable[..., Path]) -> None:
    result = make_result(loss=float("nan"), wall_time_s=float("inf"))
    (row,) = read_runs([write_runs(result)]).rows
    assert row.best_loss is None and row.wall_time_s is None and row.best_macro_f1 is not None


def test_sweeps_outputs_and_single_runs_are_found_each_once(
    make_result: Callable[..., dict], write_runs: Callable[..., Path], tmp_path: Path
) -> None:
    one = write_runs(make_result("a"), make_result("b"), sweep="multirun/one")
    two = write_runs(make_result("c"), sweep="multirun/two")
    (one / "0" / "adapter").mkdir()
    (one / "0" / "adapter" / "result.json").write_text("{}")  # not a run's
    (two / "again").symlink_to(one)
    assert [row.name for row in read_runs([one, two, one / "0"]).rows] == ["a", "b", "c"]
    assert [row.name for row in read_runs([tmp_path]).rows] == ["a", "b", "c"]
    assert [row.name for row in read_runs([two / "0"]).rows] == ["c"]


def test_runs_that_left_no_result_are_named(make_result: Callable[..., dict], write_runs: Callable[..., Path]) -> None:
    folder = write_runs(make_result("a"), make_result("killed"))
    (folder / "1" / "result.json").unlink()
    (problem,) = read_runs([folder]).problems
    assert problem == f"1 run has no result.json (still running, or killed): {folder / '1'}"


def test_replicates_below_a_trial_are_its_runs(
    make_result: Callable[..., dict], write_runs: Callable[..., Path]
) -> None:
    folder = write_runs(make_result("a"))
    (folder / "0" / "result.json").unlink()
    for seed in (0, 1):
        run = folder / "0" / f"seed_{seed}"
        run.mkdir()
        (run / "result.json").write_text(json.dumps(make_result(f"a_s{seed}")))
    runs = read_runs([folder])
    assert [row.name for row in runs.rows] == ["a_s0", "a_s1"] and runs.problems == []
    assert latest_sweep(folder.parent) == folder
    (folder / "multirun.yaml").unlink()
    assert latest_sweep(folder.parent) == folder


@pytest.mark.parametrize("marked", [True, False])
def test_the_latest_sweep_is_the_one_with_the_newest_result(
    marked: bool, make_result: Callable[..., dict], write_runs: Callable[..., Path], tmp_path: Path
) -> None:
    dated = write_runs(make_result("a"), sweep="multirun/2026-01-02/09-00-00")
    named = write_runs(make_result("b"), make_result("c"), sweep="multirun/my_search")
    empty = tmp_path / "multirun" / "zz_newest_but_empty" / "0"
    (empty / ".hydra").mkdir(parents=True)
    if not marked:
        (dated / "multirun.yaml").unlink()
        (named / "multirun.yaml").unlink()
    root = tmp_path / "multirun"
    os.utime(dated / "0" / "result.json", (2_000_000_000, 2_000_000_000))
    assert latest_sweep(root) == dated
    os.utime(named / "0" / "result.json", (2_000_000_001, 2_000_000_001))
    assert latest_sweep(root) == named


def test_no_results_and_no_folder_are_one_line_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no results under .*; run a sweep first, as in: python -m"):
        latest_sweep(tmp_path / "multirun")
    with pytest.raises(UserError, match="report: there is no folder .*nowhere"):
        read_runs([tmp_path / "nowhere"])
