"""The real wandb, offline: its record file is read back by its format and compared with metrics.jsonl."""

from __future__ import annotations

import http.server
import json
import logging
import math
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from emotion_sweeps import notices
from emotion_sweeps.tracking import wandb as wandb_tracker
from emotion_sweeps.tracking.jsonl import read_records
from emotion_sweeps.tracking.listeners import open_trackers
from emotion_sweeps.tracking.records import jsonl_safe, scalars
from emotion_sweeps.tracking.tracker import RunInfo, run_id_for
from emotion_sweeps.tracking.wandb import WandbTracker, has_credentials, resolve_mode

wandb = pytest.importorskip("wandb", reason="wandb is not installed")
from wandb.proto import wandb_internal_pb2  # noqa: E402

BLOCK, HEADER = 32768, 7  # LevelDB's log format: blocks of 32 KiB, records of crc, length, type and data


def wandb_records(file: Path) -> list[wandb_internal_pb2.Record]:
    """Every record of a .wandb file, checksums verified."""
    content, position, parts, records = file.read_bytes(), HEADER, [], []
    assert content[:4] == b":W&B"
    while position + HEADER <= len(content):
        room = BLOCK - position % BLOCK
        if room < HEADER:
            position += room
            continue
        crc, length, kind = struct.unpack("<IHB", content[position : position + HEADER])
        data = content[position + HEADER : position + HEADER + length]
        masked = zlib.crc32(bytes([kind]) + data)
        assert crc == masked, f"checksum at {position}"
        position += HEADER + length
        parts.append(data)
        if kind in (1, 4):  # whole record, or its last part
            records.append(wandb_internal_pb2.Record.FromString(b"".join(parts)))
            parts = []
    return records


def history_of(file: Path) -> dict[tuple[int, str], float | None]:
    """{(step, metric): value} of a run's history; what JSON cannot hold is None."""
    found: dict[tuple[int, str], float | None] = {}
    for record in wandb_records(file):
        if record.HasField("history"):
            row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            measured = {k: v for k, v in row.items() if not k.startswith("_")}
            found |= {
                (record.history.step.num, k): v if isinstance(v, (int, float)) and math.isfinite(v) else None
                for k, v in measured.items()
            }
    return found


def run_record(file: Path) -> wandb_internal_pb2.RunRecord:
    return next(r.run for r in wandb_records(file) if r.HasField("run"))


def config_of(file: Path) -> dict[str, object]:
    return {update.key: json.loads(update.value_json) for update in run_record(file).config.update}


def summary_of(file: Path) -> dict[str, object]:
    summary: dict[str, object] = {}
    for record in wandb_records(file):
        for item in record.summary.update:
            summary["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return summary


def exit_code_of(file: Path) -> int:
    return next(r.exit.exit_code for r in wandb_records(file) if r.HasField("exit"))


def files_of(run_dir: Path) -> list[Path]:
    wandb.teardown()  # the service flushes its last block a moment after finish() returns
    return sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb"))


def info(folder: Path, name: str, **more: object) -> RunInfo:
    fields = {"group": "sweep one", "run_id": run_id_for(str(folder), name), "tags": ("minilm", "demo"), **more}
    return RunInfo(name=name, run_dir=folder / name, **fields)  # type: ignore[arg-type]


RECORDS: list[dict[str, object]] = [
    {"kind": "memory", "phase": "load", "before_gib": 0.1, "peak_gib": 0.3, "after_gib": 0.2},
    {"kind": "notice", "text": "precision is fp32"},
    *(
        {"kind": "train", "step": s, "epoch": s / 10, "loss": 1 / s, "learning_rate": 1e-3 / s, "grad_norm": None}
        for s in range(1, 9)
    ),
    {"kind": "eval", "split": "validation", "step": 8, "epoch": 0.8, "loss": 0.31, "macro_f1": 0.57},
    {"kind": "train", "step": 9, "epoch": 0.9, "loss": math.nan, "learning_rate": 0.0},
    {"kind": "eval", "split": "validation", "step": 10, "epoch": 1.0, "loss": 0.33, "macro_f1": 0.59},
    {"kind": "memory", "phase": "train", "before_gib": 0.2, "peak_gib": 1.3, "after_gib": 0.4},
]


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(notices, "_said", set())
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    wandb.teardown()


def test_offline_files_hold_every_metric_of_metrics_jsonl(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = {"lora": {"r": 24, "dropout": 0.1, "target_modules": ["query", "value"]}, "name": None, "seed": 0}
    run = info(tmp_path, "exp3_r24", config=config)
    trackers = open_trackers(["wandb"])  # auto, and no key is configured
    with caplog.at_level(logging.WARNING, "emotion_sweeps"):
        trackers.start(run)
    for record in RECORDS:
        trackers.log(record)
    trackers.finish("complete", {"best/loss": 0.31, "best/macro_f1": math.nan})

    assert "offline" in caplog.text and "wandb sync" in caplog.text
    (file,) = files_of(run.run_dir)
    written = run_record(file)
    assert (written.display_name, written.run_group, written.job_type) == ("exp3_r24", "sweep one", "trial")
    assert written.run_id == run.run_id and written.project == "emotion_sweeps"
    assert set(written.tags) == {"minilm", "demo"}
    assert {k: v for k, v in config_of(file).items() if k in config} == config

    records, bad = read_records(run.run_dir / "metrics.jsonl")
    assert bad == 0 and len(records) == len(RECORDS)
    expected: dict[tuple[int, str], float | None] = {}
    step = 0
    for record in records:
        step = record.get("step", step)
        prefix = {"train": "train/", "eval": "validation/", "memory": f"memory/{record.get('phase')}/"}
        for key, value in record.items():
            if key not in ("kind", "split", "phase", "step", "text"):
                expected[(step, prefix[record["kind"]] + key)] = value
    history = history_of(file)
    known = {k: v for k, v in expected.items() if v is not None}
    assert len(known) > 30 and {k: v for k, v in history.items() if v is not None} == pytest.approx(known)
    assert [k for k, v in history.items() if v is None] == [(9, "train/loss")]  # NaN is shown, not dropped
    summary = summary_of(file)
    assert summary["best/loss"] == 0.31 and summary["status"] == "complete"
    assert exit_code_of(file) == 0


def test_two_runs_in_one_process_stay_apart_and_failure_is_told(tmp_path: Path) -> None:
    first, second = info(tmp_path, "exp0"), info(tmp_path, "exp1")
    one, two = (WandbTracker(project="p", mode="offline") for _ in range(2))
    one.start(first)
    two.start(second)
    for step in range(1, 4):
        one.log({"kind": "train", "step": step, "loss": 1.0 * step})
        two.log({"kind": "train", "step": step, "loss": 10.0 * step})
    one.finish("failed", {})
    two.log({"kind": "train", "step": 4, "loss": 40.0})  # goes on after its mate has failed
    two.finish("pruned", {})
    two.finish("pruned", {})

    (a,), (b,) = files_of(first.run_dir), files_of(second.run_dir)
    assert history_of(a) == {(s, "train/loss"): 1.0 * s for s in (1, 2, 3)}
    assert history_of(b) == {(s, "train/loss"): 10.0 * s for s in (1, 2, 3, 4)}
    assert (exit_code_of(a), exit_code_of(b)) == (1, 0)
    assert summary_of(a)["status"] == "failed" and summary_of(b)["status"] == "pruned"
    assert wandb.run is None  # no run is global, so nothing else can log into it by accident


def test_a_resumed_trial_is_one_id_whose_steps_only_rise(tmp_path: Path) -> None:
    run = info(tmp_path, "exp0")
    for records in (RECORDS[:8], RECORDS[8:]):
        tracker = WandbTracker(project="p", mode="offline")
        tracker.start(run)
        for record in records:
            tracker.log(record)
        tracker.finish("complete", {})
        time.sleep(1.1)  # W&B names folders by the second
    files = files_of(run.run_dir)
    assert len(files) == 2 and {run_record(f).run_id for f in files} == {run.run_id}
    steps = [[r.history.step.num for r in wandb_records(f) if r.HasField("history")] for f in files]
    assert steps[0] == sorted(steps[0]) and steps[1] == sorted(steps[1]) and steps[0][-1] < steps[1][0]


def test_a_step_that_falls_is_logged_at_the_last_one(tmp_path: Path) -> None:
    run = info(tmp_path, "exp0")
    tracker = WandbTracker(project="p", mode="offline")
    tracker.start(run)
    tracker.log({"kind": "train", "step": 5, "loss": 1.0})
    tracker.log({"kind": "eval", "split": "validation", "step": 3, "loss": 2.0})
    tracker.finish("complete", {})
    (file,) = files_of(run.run_dir)
    assert history_of(file) == {(5, "train/loss"): 1.0, (5, "validation/loss"): 2.0}


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    run = info(tmp_path, "exp0")
    tracker = WandbTracker(project="p", mode="disabled")
    tracker.start(run)
    tracker.log({"kind": "train", "step": 1, "loss": 1.0})
    tracker.finish("complete", {})
    assert files_of(run.run_dir) == []


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers, and takes nobody's key."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"errors": [{"message": "user is not logged in"}]}')

    def log_message(self, *args: object) -> None: ...


@contextmanager
def server_that(behaviour: str) -> Iterator[int]:
    """A port on which a server refuses connections, is silent, or refuses the key."""
    if behaviour == "refuses the key":
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server.server_port
            server.shutdown()
        return
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if behaviour == "is silent":
            listening.listen()
        yield listening.getsockname()[1]


SCRIPT = """
import sys, time
from pathlib import Path
from emotion_sweeps.tracking.listeners import open_trackers
from emotion_sweeps.tracking.tracker import RunInfo
for name in ("exp0", "exp1"):
    began = time.monotonic()
    trackers = open_trackers(["wandb"])
    trackers.start(RunInfo(name=name, group="g", run_dir=Path(sys.argv[1]) / name, run_id=name * 4))
    print(time.monotonic() - began)
    trackers.log({"kind": "train", "step": 1, "loss": 0.5})
    trackers.finish("complete", {})
"""


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["refuses connections", "is silent", "refuses the key"])
def test_a_server_that_cannot_be_used_costs_ten_seconds_once_and_loses_nothing(behaviour: str, tmp_path: Path) -> None:
    """In a process of its own, because W&B keeps its server's address for a process's life."""
    with server_that(behaviour) as port:
        env = {"HOME": str(tmp_path), "WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": f"http://127.0.0.1:{port}"}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first_s, second_s = map(float, done.stdout.split())
    assert first_s < 10 and second_s < 2
    assert done.stderr.count("going on offline") == 1
    for name in ("exp0", "exp1"):
        (file,) = files_of(tmp_path / name)
        assert history_of(file) == {(1, "train/loss"): 0.5}
        assert run_record(file).run_id == name * 4


def test_offline_asks_nothing_of_any_server(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0.1)
        env = {"HOME": str(tmp_path), "WANDB_BASE_URL": f"http://127.0.0.1:{listening.getsockname()[1]}"}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
        subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
        with pytest.raises(TimeoutError):
            listening.accept()


@pytest.mark.parametrize(
    ("asked", "told", "key", "mode"),
    [
        ("auto", "online", None, "offline"),
        ("auto", "online", "k" * 40, "online"),
        ("auto", "offline", "k" * 40, "offline"),
        ("auto", "dryrun", "k" * 40, "offline"),
        ("auto", "disabled", "k" * 40, "disabled"),
        ("online", "offline", None, "online"),
        ("offline", "online", "k" * 40, "offline"),
    ],
)
def test_mode_auto_follows_what_wandb_was_told_and_the_key(asked: str, told: str, key: str | None, mode: str) -> None:
    session = SimpleNamespace(mode=told, api_key=key, base_url="https://api.wandb.ai")
    assert resolve_mode(asked, session) == mode


def test_credentials_are_found_where_wandb_login_leaves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = SimpleNamespace(mode="online", api_key=None, base_url="https://wandb.example.org")
    assert not has_credentials(session)
    (tmp_path / "netrc").write_text("machine elsewhere.example.org\n login user\n password " + "a" * 40 + "\n")
    assert not has_credentials(session)
    (tmp_path / "netrc").write_text("machine wandb.example.org\n  login user\n  password " + "a" * 40 + "\n")
    assert has_credentials(session)
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert has_credentials(session)


def test_a_config_with_arrays_and_paths_is_written_as_plain_values(tmp_path: Path) -> None:
    assert jsonl_safe({"a": tmp_path}) == {"a": str(tmp_path)}
    assert scalars({"kind": "train", "step": 1, "loss": 1}) == {"train/loss": 1.0}
    assert wandb_tracker.PROBE_TIMEOUT_S + wandb_tracker.INIT_TIMEOUT_S < 10
