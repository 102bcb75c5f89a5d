"""Real training, killed with SIGKILL again and again: the same command ends with every cell trained exactly once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SWEEP = [
    "-m", "lora.r=2,4", "scheduler=linear,cosine", "model=roberta_tiny", "tracking=jsonl", "hardware.precision=fp32",
    "data.max_samples=160", "data.max_eval_samples=32", "training.epochs=5", "training.evals_per_epoch=4",
    "training.log_every=1", "sweep.lease_s=3", "hydra.sweep.dir=sweep",
]  # fmt: skip
KILLS = 8


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "emotion_sweeps.train", *SWEEP]
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def results(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted((folder / "sweep").glob("*/result.json")):
        found[path.parent.name] = json.loads(path.read_text())
    return found


def finished(folder: Path) -> dict[str, bytes]:
    paths = sorted((folder / "sweep").glob("*/result.json"))
    contents = {path.parent.name: path.read_bytes() for path in paths}
    return {name: content for name, content in contents.items() if json.loads(content)["status"] == "complete"}


def records_written(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (folder / "sweep").glob("*/metrics.jsonl"))


def kill_in_training(folder: Path, dice: random.Random) -> bool:
    """Start, wait until training writes, kill at a random moment soon after; False when the sweep ended first."""
    process, before = start(folder), records_written(folder)
    while records_written(folder) <= before and process.poll() is None:
        time.sleep(0.02)
    deadline = time.monotonic() + dice.uniform(0.0, 2.5)
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(folder).wait() == 0, (folder / "log.txt").read_text()[-3000:]
    yield folder


@pytest.mark.slow
def test_killed_sweeps_end_as_if_nothing_had_happened(undisturbed: Path, tmp_path: Path) -> None:
    dice, kills = random.Random(0), 0
    kept: dict[str, bytes] = {}
    for _ in range(KILLS):
        kills += kill_in_training(tmp_path, dice)
        done = finished(tmp_path)
        assert {name: done[name] for name in kept} == kept, "a finished trial's folder was written again"
        kept = done
    assert kills >= 5
    assert start(tmp_path).wait() == 0, (tmp_path / "log.txt").read_text()[-3000:]

    ours, theirs = results(tmp_path), results(undisturbed)
    assert sorted(ours) == sorted(theirs) == ["0", "1", "2", "3"]
    for number, result in theirs.items():
        assert ours[number]["status"] == "complete"
        for part in ("name", "best", "kept", "final", "objective", "thresholds"):
            assert ours[number][part] == result[part], f"{part} of trial {number}"


@pytest.mark.slow
def test_the_study_holds_every_cell_complete_once(undisturbed: Path) -> None:
    import optuna

    storage = f"sqlite:///{undisturbed / 'sweep' / 'study.db'}"
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    assert [t.state.name for t in trials] == ["COMPLETE"] * 4
    assert len({tuple(sorted(t.params.items())) for t in trials}) == 4
