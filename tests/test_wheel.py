"""A wheel, installed in a clean environment, sweeps from another folder by both of its entry points."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ["training=smoke", "data.max_samples=32", "data.max_eval_samples=16", "tracking=jsonl", "model=roberta_tiny"]


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)], out)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_carries_the_config_and_the_corpus(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "conf/train.yaml",
        "conf/model/minilm.yaml",
        "data/demo/train.jsonl",
        "data/demo/DATASHEET.md",
        "py.typed",
    ):
        assert f"emotion_sweeps/{name}" in names
    assert not [n for n in names if n.startswith(("tests/", "conf/"))]


@pytest.mark.slow
def test_a_clean_environment_sweeps_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    env, elsewhere = tmp_path / "env", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run([sys.executable, "-m", "venv", str(env)], tmp_path)
    python = str(env / "bin" / "python")
    run([python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel)], tmp_path)
    run([python, "-m", "emotion_sweeps.train", "-m", "lora.r=2,4", *SMOKE], elsewhere)
    results = [json.loads(p.read_text()) for p in sorted(elsewhere.glob("multirun/**/result.json"))]
    assert [r["lora"]["r"] for r in results] == [2, 4]
    assert {r["status"] for r in results} == {"complete"}
    assert "roberta_tiny" in run([str(env / "bin" / "emotion-sweeps"), "report", "--no-baseline"], elsewhere)
    assert "emotion_sweeps" in run([str(env / "bin" / "emotion-sweeps"), "train", "--help"], elsewhere)
