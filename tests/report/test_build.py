from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emotion_sweeps.errors import UserError
from emotion_sweeps.report import baselines
from emotion_sweeps.report.baselines import NAME, BaselineScore
from emotion_sweeps.report.build import Report, build_report
from emotion_sweeps.report.terminal import print_report

Make = Callable[..., dict[str, Any]]
Write = Callable[..., Path]
HOSTILE = [
    "a|b`c`",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "two\nlines",
    "[x](http://evil.example)",
    "\x1b[2J",
]


def no_corpus(config: dict[str, Any]) -> Any:
    raise AssertionError("the corpus is not needed here")


def shown(report: Report, width: int | None = None) -> str:
    out = io.StringIO()
    print_report(report, file=out, width=width)
    return out.getvalue()


def lora(r: int) -> dict[str, Any]:
    return {"lora": {"r": r}}


def test_four_files_and_one_table(make_result: Make, write_runs: Write, tmp_path: Path) -> None:
    folder = write_runs(
        make_result("exp0", loss=0.31, config=lora(1)), make_result("exp1", loss=0.30, macro_f1=0.57, config=lora(2))
    )
    report = build_report([folder], tmp_path / "out", no_corpus, baseline=False)
    assert [path.name for path in report.paths] == [
        "leaderboard.md",
        "leaderboard.html",
        "leaderboard.csv",
        "best_config.yaml",
    ]
    lines = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")]
    heads = "rank, experiment, best val loss, LoRA config, scheduler, data, macro-F1, trainable, minutes, notes"
    assert table[0] == f"| {heads.replace(', ', ' | ')} |"
    assert table[2:] == [
        "| 🥇 1 | exp1 | 0.3000 | r=16, alpha=32, dropout=0.05 | linear | demo | 0.570 | 1,234,567 | 1.5 |  |",
        "| 🥈 2 | exp0 | 0.3100 | r=16, alpha=32, dropout=0.05 | linear | demo | 0.550 | 1,234,567 | 1.5 |  |",
    ]
    assert "Ranked by best validation loss, because" in report.text


def test_the_baseline_stands_in_the_table(
    make_result: Make, write_runs: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = BaselineScore(1, "a" * 64, "demo", 900, 0.6, {"loss": 0.4, "macro_f1": 0.56}, {"macro_f1": 0.44})
    monkeypatch.setattr(baselines, "baseline_score", lambda run, load: score)
    report = build_report([write_runs(make_result("exp0"))], tmp_path / "out", no_corpus)
    assert report.text.index(NAME) < report.text.index("| 🥇 1 | exp0")
    assert "No trial beats" in report.text and "No trial beats" in shown(report)
    assert f"| – | {NAME} | 0.4000 | – | – | demo | 0.560 | – | 0.0 | baseline, not a trial" in report.text


def test_hostile_names_break_no_table_and_execute_nowhere(make_result: Make, write_runs: Write, tmp_path: Path) -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="rendering is checked with markdown-it-py")
    results = [
        make_result(text, loss=i, scheduler=text, config=lora(i), data={"name": text}, lora={"target_modules": [text]})
        for i, text in enumerate(HOSTILE, start=1)
    ]
    broken = {"status": "failed", "name": HOSTILE[0], "error": {"class": "E", "message": "\n".join(HOSTILE)}}
    report = build_report([write_runs(*results, broken)], tmp_path / "out", no_corpus, baseline=False)

    html = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(report.text)
    board, *further = html.split("</table>")
    assert board.count("<tr>") == 1 + len(HOSTILE)
    for table in (board, *further[:-1]):  # no name opens a cell of its own
        heads = table.count("<th>")
        assert heads and table.count("<td") == heads * (table.count("<tr>") - 1)
    assert all(tag not in html for tag in ("<script", "<a ", "<img", "<code>a", "<em>", "<strong>"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html

    cells = list(csv.reader(io.StringIO((tmp_path / "out" / "leaderboard.csv").read_text(encoding="utf-8"))))
    assert len(cells) == 2 + len(HOSTILE) and {len(row) for row in cells} == {len(cells[0])}
    assert not [cell for row in cells for cell in row if cell.startswith(("=", "+", "-", "@"))]

    for width in (60, 200):
        assert "\x1b" not in shown(report, width)


def test_half_a_result_is_among_the_caveats(make_result: Make, write_runs: Write, tmp_path: Path) -> None:
    folder = write_runs(make_result("exp0"), make_result("torn"))
    torn = folder / "1" / "result.json"
    torn.write_bytes(torn.read_bytes()[:100])
    report = build_report([folder], tmp_path / "out", no_corpus, baseline=False)
    assert any("not whole JSON" in caveat for caveat in report.caveats)
    assert "not whole JSON" in report.text and "exp0" in report.text


def test_only_failures_are_listed_with_their_reasons(make_failure: Make, write_runs: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "best_config.yaml").write_text("an earlier winner")
    report = build_report([write_runs(make_failure("a"), make_failure("b", "no disk"))], out, no_corpus)
    assert [path.name for path in report.paths] == ["leaderboard.md", "leaderboard.html", "leaderboard.csv"]
    assert not (out / "best_config.yaml").exists()
    assert "No trial finished" in report.text and "- b: RuntimeError: no disk" in report.text
    assert "b: RuntimeError: no disk" in shown(report)


def test_pruned_trials_are_listed_below(make_result: Make, write_runs: Write, tmp_path: Path) -> None:
    pruned = make_result("exp1", loss=0.2, macro_f1=0.3, status="pruned")
    report = build_report([write_runs(make_result("exp0"), pruned)], tmp_path / "out", no_corpus, baseline=False)
    said = "- exp1: stopped by the study at step 120, best validation loss 0.2000, macro-F1 0.300"
    assert said in report.text.split("## Pruned")[1]


def test_an_empty_folder_is_a_one_line_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no results under .*; run a sweep first, as in: python -m"):
        build_report([tmp_path], tmp_path / "out", no_corpus)
    assert not (tmp_path / "out").exists()


def test_a_sweep_that_only_left_killed_runs_says_so(make_result: Make, write_runs: Write, tmp_path: Path) -> None:
    folder = write_runs(make_result("a"))
    (folder / "0" / "result.json").unlink()
    report = build_report([folder], tmp_path / "out", no_corpus)
    assert "1 run has no result.json" in report.text and "No trial finished" in report.text


def test_the_winner_alone_is_scored_on_the_test_part(make_result: Make, write_runs: Write, tmp_path: Path) -> None:
    from sklearn.metrics import f1_score

    folder = write_runs(make_result("exp0", loss=0.2, config=lora(1)), make_result("exp1", loss=0.3, config=lora(2)))
    gold = [["joy"], ["fear"], ["joy", "fear"], []]
    predicted = [["joy"], ["joy"], ["joy", "fear"], ["fear"]]
    rows = [
        {"id": str(i), "text": "line\u2028break", "gold": g, "predicted": p}
        for i, (g, p) in enumerate(zip(gold, predicted, strict=True))
    ]
    for run in ("0", "1"):
        (folder / run / "predictions").mkdir()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "0" / "predictions" / "test.jsonl").write_text(lines, encoding="utf-8")
    (folder / "1" / "predictions" / "test.jsonl").write_text("not read")

    def hot(labels: list[list[str]]) -> list[list[int]]:
        return [[name in row for name in ("joy", "fear")] for row in labels]

    report = build_report([folder], tmp_path / "out", no_corpus, baseline=False)
    assert report.board.test is not None
    assert report.board.test["macro_f1"] == pytest.approx(f1_score(hot(gold), hot(predicted), average="macro"))
    assert "Test part, scored for the first of the board alone: macro-F1 0.650" in report.text
    assert not [caveat for caveat in report.caveats if "predictions" in caveat]

    (folder / "0" / "predictions" / "test.jsonl").write_text('{"gold": ["joy"]}')
    report = build_report([folder], tmp_path / "out", no_corpus, baseline=False)
    assert report.board.test is None and "not the predictions that a run writes" in report.text


def test_a_narrow_terminal_goes_without_costs_and_a_pipe_gets_plain_text(
    make_result: Make, write_runs: Write, tmp_path: Path
) -> None:
    report = build_report([write_runs(make_result("exp0"))], tmp_path / "out", no_corpus, baseline=False)
    wide, narrow = shown(report), shown(report, 80)
    assert "1,234,567" in wide and "1,234,567" not in narrow
    assert max(len(line) for line in narrow.splitlines()[:6]) <= 80
    assert "\x1b" not in wide and "leaderboard.md" in narrow


@pytest.fixture
def winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_result: Make, write_runs: Write
) -> Callable[..., Path]:
    """Builds a report of one run with a real config, from a working folder of its own; returns the written config."""

    def build(*overrides: str, **config: Any) -> Path:
        from emotion_sweeps.config.compose import as_container, compose

        whole = {**as_container(compose(list(overrides))), **config}
        result = {**make_result("exp0"), "config": whole}
        monkeypatch.chdir(tmp_path)
        build_report([write_runs(result)], tmp_path / "out", no_corpus, baseline=False)
        return tmp_path / "out" / "best_config.yaml"

    return build


def test_best_config_composes_to_what_the_winner_trained(winner: Callable[..., Path]) -> None:
    import hydra

    from emotion_sweeps.config.compose import as_container, compose, to_conf
    from emotion_sweeps.config.register import register

    overrides = ["lora.r=24", "lora.alpha=64", "scheduler=cosine", "task.instruction='yes: \\'1e-3\\' {labels} # no'"]
    written = winner(*overrides, hydra={"job": {"name": "x"}})
    register()
    with hydra.initialize_config_dir(str(written.parent)):
        again = as_container(to_conf(hydra.compose("best_config")))
    expected = as_container(compose(overrides))
    assert {k: v for k, v in again.items() if k != "sweep"} == {k: v for k, v in expected.items() if k != "sweep"}


def test_best_config_says_where_it_came_from_and_hides_how_it_was_searched(winner: Callable[..., Path]) -> None:
    text = winner("lora.r=24", "sweep.storage=postgresql://me:secret@host/db").read_text(encoding="utf-8")
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert "exp0 in multirun/2026-01-01/10-00-00/0" in header[1]
    assert "python -m emotion_sweeps.train --config-dir out --config-name best_config" in header[2]
    assert "secret" not in text and "\nsweep:" not in text
    assert text.split("\n", len(header))[-1].startswith("defaults:\n- schema\n- _self_\n")


def test_paths_below_the_working_folder_become_relative_and_others_are_named(
    winner: Callable[..., Path], tmp_path: Path
) -> None:
    import yaml

    for name in ("train.tsv", "labels.txt"):
        (tmp_path / name).write_text("text\tjoy\n")
    outside = Path(__file__).resolve()
    data = {"train": str(tmp_path / "train.tsv"), "validation": str(outside), "label_separator": "/"}
    text = winner(data={"name": "mine", "source": "files", **data}).read_text(encoding="utf-8")
    written = yaml.safe_load(text)["data"]
    assert (
        written["train"] == "train.tsv" and written["validation"] == str(outside) and written["label_separator"] == "/"
    )
    assert "# Paths of the machine that trained it, to be changed on another: data.validation" in text
    assert str(tmp_path) not in text


def test_text_that_looks_like_an_interpolation_stays_text(winner: Callable[..., Path]) -> None:
    from omegaconf import OmegaConf

    written = winner(task={"instruction": "pay ${oc.env:HOME} or ${x}"})
    config: Any = OmegaConf.to_container(OmegaConf.load(written), resolve=True)
    assert config["task"]["instruction"] == "pay ${oc.env:HOME} or ${x}"


def test_the_printed_command_reads_best_config_from_another_process(
    winner: Callable[..., Path], tmp_path: Path
) -> None:
    text = winner("lora.r=24").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "python -m" in line)
    words = line[line.index("python -m") :].split()
    done = subprocess.run(
        [sys.executable, *words[1:], "--cfg", "job"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "r: 24" in done.stdout
