"""Runs the toy app as a sweep, in this process (quick) or in one of its own (to be killed)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

APP = Path(__file__).parent / "apps" / "toy.py"
sys.path.insert(0, str(APP.parent))


class Sweeps:
    """One working folder in which sweeps run."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        self.log = folder / "toy.log"

    def settings(self, settings: dict[str, Any]) -> str:
        return json.dumps({"log": str(self.log), **settings})

    def run(self, *overrides: str, product: bool = False, **settings: Any) -> None:
        """Run the sweep here, on the toy's config or the product's own; raises what the command would have told."""
        import toy

        self._patch.chdir(self.folder)
        self._patch.setenv("HYDRA_FULL_ERROR", "1")
        self._patch.setenv("EMOTION_SWEEPS_TOY", self.settings(settings))
        sweeper = () if any(o.startswith("hydra/sweeper=") for o in overrides) else ("hydra/sweeper=study",)
        self._patch.setattr(sys, "argv", [str(APP), "-m", *sweeper, *overrides])
        (toy.product if product else toy.main)()

    def start(self, *overrides: str, **settings: Any) -> subprocess.Popen[str]:
        """Start the sweep in a process group of its own."""
        environment = {**os.environ, "EMOTION_SWEEPS_TOY": self.settings(settings), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(APP), "-m", "hydra/sweeper=study", *overrides]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def lines(self, word: str) -> list[list[str]]:
        """Lines of the toy's log that begin with `word`, split: word, number, pid, overrides."""
        if not self.log.exists():
            return []
        return [line.split(" ", 3) for line in self.log.read_text().splitlines() if line.startswith(word)]

    def clear_log(self) -> None:
        self.log.unlink(missing_ok=True)

    def sweep_dir(self, name: str | None = None) -> Path:
        """The folder of the study called `name`, or of the only one."""
        root = self.folder / "multirun"
        if name is not None:
            return root / name
        (only,) = root.iterdir()
        return only

    def study_dirs(self) -> list[str]:
        return sorted(p.name for p in (self.folder / "multirun").iterdir() if p.name != "whole")

    def study(self, name: str | None = None) -> optuna.Study:
        """The study, read through Optuna alone."""
        folder = self.sweep_dir(name)
        return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder}/study.db")

    def states(self, name: str | None = None) -> list[str]:
        return [t.state.name for t in self.study(name).trials]


@pytest.fixture
def sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweeps:
    return Sweeps(tmp_path, monkeypatch)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any], float], None]:
    import time

    def wait(condition: Callable[[], Any], timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError("it did not happen in time")
            time.sleep(0.02)

    return wait


@pytest.fixture(autouse=True)
def _fresh_notices() -> Iterator[None]:
    from emotion_sweeps import notices

    notices._said.clear()
    yield
