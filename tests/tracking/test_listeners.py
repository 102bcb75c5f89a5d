from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from emotion_sweeps.errors import UserError
from emotion_sweeps.tracking import listeners
from emotion_sweeps.tracking.listeners import check_trackers, open_trackers
from emotion_sweeps.tracking.tracker import RunInfo


def test_metrics_jsonl_is_always_written_and_extra_trackers_hear_too(tmp_path: Path) -> None:
    class Own:
        heard: list[object] = []

        def start(self, run: RunInfo) -> None: ...

        def log(self, record: Mapping[str, Any]) -> None:
            self.heard.append(record["step"])

        def finish(self, status: str, summary: Mapping[str, Any]) -> None: ...

    trackers = open_trackers(extra=[Own()])
    trackers.start(RunInfo(name="exp0", group=None, run_dir=tmp_path, run_id="a" * 16))
    trackers.log({"step": 1})
    trackers.finish("complete", {})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert Own.heard == [1]


def test_an_unknown_listener_is_named_with_a_suggestion() -> None:
    with pytest.raises(UserError, match=r'unknown listener wandbb; known are wandb, tensorboard; did you mean "wandb"'):
        open_trackers(["wandbb"])


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UserError, match=r"tracking.wandb_mode must be one of .* got off"):
        check_trackers([], wandb_mode="off")


def test_a_listener_that_is_not_installed_is_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="tracking.tensorboard=true needs the package tensorboard.*pip install"):
        open_trackers(["tensorboard"])


def test_online_by_name_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "quiet_session", lambda: None)
    monkeypatch.setattr(listeners, "has_credentials", lambda session: False)
    with pytest.raises(UserError, match="wandb_mode=online needs an API key.*wandb login"):
        check_trackers(["wandb"], wandb_mode="online")
    check_trackers(["tensorboard"], wandb_mode="online")  # W&B does not listen, so nothing is needed
