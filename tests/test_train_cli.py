"""The command line: exit codes, one-line mistakes with nothing written, cells checked first, the best config."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SMOKE = ["training=smoke", "data.max_samples=32", "data.max_eval_samples=16", "tracking=jsonl", "model=roberta_tiny"]


def train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emotion_sweeps.train", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lora.r=0"], "error: lora.r must be >= 1, got 0"),
        (["model=mini"], 'error: model=mini: no such option; did you mean "minilm"?'),
        (["lora.droput=.1"], 'did you mean "lora.dropout"?'),
        (["data=files", "data.train=nope.tsv"], "error: data.train: file not found: nope.tsv"),
        (["task=label_generation"], "error: task=label_generation needs a decoder"),
        (["hardware.device=cuda:99"], "hardware.device=cuda:99"),
        (["-m", "hydra/sweeper=basic", "lora.r=16,0"], "error: lora.r must be >= 1, got 0"),
        (["-m", "hydra/sweeper=optuna", "lora.dropout=interval(0.1, 1)"], "lora.dropout must be >= 0 and < 1"),
        (["--config-name", "no_such_config"], "no_such_config"),
        (["lora.r=8,16"], "add -m to sweep over them"),
        (["search=lora"], "is a sweep and needs -m"),
        ([*SMOKE, "data.max_length=600"], "data.max_length must be <= 512 for model=roberta_tiny, got 600"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = train(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [done.stderr.splitlines()[-1]]
    assert "Error executing job" not in done.stderr
    assert not list(tmp_path.glob("multirun/**/result.json")) and not list(tmp_path.rglob("adapter"))


def test_a_mistake_in_the_config_writes_nothing(tmp_path: Path) -> None:
    train("lora.r=0", cwd=tmp_path)
    train("-m", "hydra/sweeper=basic", "lora.r=16,0", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_run_leaves_a_finished_trial_as_it_is(tmp_path: Path) -> None:
    assert train(*SMOKE, "hydra.run.dir=one", cwd=tmp_path).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()}
    done = train(*SMOKE, "lora.r=8", "hydra.run.dir=one", cwd=tmp_path)
    assert done.returncode == 2 and "holds another finished trial" in done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()} == before


def test_our_own_failures_keep_their_traceback(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['train', 'training=smoke', 'tracking=jsonl']\n"
        "import emotion_sweeps.trial.run as trial\n"
        "def broken(*args): raise RuntimeError('ours')\n"
        "trial.run_trial = broken\n"
        "from emotion_sweeps.train import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "RuntimeError: ours" in done.stderr


def test_config_and_info_show_without_running(tmp_path: Path) -> None:
    shown = train("--cfg", "job", "lora.r=24", cwd=tmp_path)
    assert shown.returncode == 0 and "r: 24" in shown.stdout
    assert train("--info", "searchpath", cwd=tmp_path).returncode == 0
    assert list(tmp_path.glob("**/result.json")) == []


def test_a_single_run_and_its_report_and_its_best_config(tmp_path: Path) -> None:
    run = train(*SMOKE, "hydra.run.dir=one", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    cli = str(Path(sys.executable).parent / "emotion-sweeps")
    report = subprocess.run([cli, "report", "one"], cwd=tmp_path, capture_output=True, text=True)
    assert report.returncode == 0, report.stderr
    assert "r16_a32_d05_linear" in report.stdout and "TF-IDF" in report.stdout
    again = train("--config-dir", "one", "--config-name", "best_config", "hydra.run.dir=two", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "two" / "result.json").is_file()


def test_a_report_on_nothing_is_one_line(tmp_path: Path) -> None:
    cli = str(Path(sys.executable).parent / "emotion-sweeps")
    done = subprocess.run([cli, "report"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
