"""Death and disorder: killed workers, dead leases, torn journals, left-over locks, full disks."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from sweep_kit import FOUR

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps import leases
from emotion_sweeps.sweeps.journal import open_journal

CELLS = ("lora.r=8,16,24", "scheduler=linear,cosine")


def kill_group(process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may just have ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def complete_once(study: optuna.Study, cells: int) -> None:
    assert Counter(t.state.name for t in study.trials) == {"COMPLETE": cells}
    assert len({tuple(t.params.items()) for t in study.trials}) == cells
    assert [t.number for t in study.trials] == list(range(cells))


def killed_and_resumed(sweeps, wait_until, kills: int, seed: int, *overrides: str, **settings) -> None:
    """Kill the sweep `kills` times at random moments after its study exists, then let it end."""
    generator = random.Random(seed)
    for _ in range(kills):
        before = len(sweeps.lines("start"))
        process = sweeps.start(*overrides, **settings)
        wait_until(lambda n=before, p=process: len(sweeps.lines("start")) > n or p.poll() is not None, 60)
        time.sleep(generator.random() * 0.5)
        kill_group(process)
    sweeps.run(*overrides, **settings)


def test_killed_at_random_moments_every_cell_is_complete_once(sweeps, wait_until):
    killed_and_resumed(sweeps, wait_until, 2, 1, *CELLS, evals=3, sleep_s=0.03)
    complete_once(sweeps.study(), 6)
    sweeps.run(*CELLS, "sweep.study_name=whole", evals=3)
    assert sweeps.study(sweeps.study_dirs()[0]).best_value == sweeps.study("whole").best_value


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["study.db", "study.log"])
def test_killed_twenty_times(sweeps, wait_until, storage):
    common = ("lora.r=8,16,24,32,40", "scheduler=linear,cosine", "sweep.study_name=s", f"sweep.storage={storage}")
    killed_and_resumed(sweeps, wait_until, 20, 2, *common, evals=4, sleep_s=0.1)
    url = f"sqlite:///{sweeps.folder}/study.db"
    if storage.endswith(".log"):
        url = optuna.storages.JournalStorage(open_journal(sweeps.folder / "study.log"))
    study = optuna.load_study(study_name="s", storage=url)
    complete_once(study, 10)
    for trial in study.trials:
        assert sorted(trial.intermediate_values) == [1, 2, 3, 4]


def test_an_orphan_goes_on_in_its_folder_from_its_checkpoint(sweeps, wait_until):
    process = sweeps.start("lora.r=8,16", evals=6, sleep_s=0.15)
    wait_until(lambda: list(sweeps.folder.glob("multirun/*/0/checkpoints/last")), 60)
    kill_group(process)
    first = int((sweeps.sweep_dir() / "0" / "checkpoints" / "last").read_text())
    assert sweeps.states() == ["RUNNING"]
    began = time.monotonic()
    sweeps.run("lora.r=8,16", evals=6)
    assert time.monotonic() - began < 30  # noticed by the dead process, not by the lease of 60 s
    study = sweeps.study()
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 2
    starts = [line for line in sweeps.lines("start") if line[1] == "0"]
    assert len(starts) == 2 and (sweeps.sweep_dir() / "0" / "attempts").read_text() == "2"
    assert sorted(study.trials[0].intermediate_values) == [1, 2, 3, 4, 5, 6] and 1 <= first < 6


def test_a_trial_that_had_ended_when_its_worker_died_is_not_trained_again(sweeps):
    process = sweeps.start("lora.r=8,16", result=True, die_after="lora.r=16")
    assert process.wait() == 9
    assert sweeps.states() == ["COMPLETE", "RUNNING"]
    sweeps.run("lora.r=8,16", result=True)
    assert sweeps.states() == ["COMPLETE", "COMPLETE"]
    assert len([line for line in sweeps.lines("start") if line[1] == "1"]) == 1
    assert sweeps.study().trials[1].value == pytest.approx(0.146)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_worker_gives_its_trial_back(sweeps, wait_until, signal_number):
    process = sweeps.start("lora.r=8,16", evals=50, sleep_s=0.1)
    wait_until(lambda: sweeps.lines("start"), 60)
    process.send_signal(signal_number)
    assert process.wait(timeout=30) != 0
    claim = sweeps.study().trials[0].system_attrs[leases.CLAIM_KEY]
    assert claim["state"] == "released"


def test_two_processes_and_one_killed_run_each_cell_once(sweeps, wait_until):
    cells = ("lora.r=range(1,9)", "scheduler=linear,cosine", "sweep.workers=2", "sweep.study_name=s")
    process = sweeps.start(*cells, sleep_s=0.2, result=True)
    wait_until(lambda: len(sweeps.lines("end")) >= 4, 90)
    victim = sweeps.lines("start")[-1]
    os.kill(int(victim[2]), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "another one takes its place" in output
    complete_once(sweeps.study("s"), 16)
    ends = Counter(line[1] for line in sweeps.lines("end"))
    assert set(ends.values()) == {1} and len(ends) == 16
    starts = Counter(line[1] for line in sweeps.lines("start"))
    assert sum(starts.values()) <= 17 and len({line[2] for line in sweeps.lines("start")}) >= 2


@pytest.mark.slow
def test_four_processes_forty_cells_one_killed(sweeps, wait_until):
    cells = ("lora.r=range(1,21)", "scheduler=linear,cosine", "sweep.workers=4", "sweep.study_name=s")
    process = sweeps.start(*cells, sleep_s=0.2, result=True)
    wait_until(lambda: len(sweeps.lines("end")) >= 20, 120)
    os.kill(int(sweeps.lines("start")[-1][2]), signal.SIGKILL)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    complete_once(sweeps.study("s"), 40)
    ends = Counter(line[1] for line in sweeps.lines("end"))
    assert set(ends.values()) == {1} and len(ends) == 40


@pytest.mark.slow
def test_children_end_with_their_killed_parent(sweeps, wait_until):
    process = sweeps.start("lora.r=8,16,24", "sweep.workers=2", evals=100, sleep_s=0.1)
    wait_until(lambda: len({line[2] for line in sweeps.lines("start")}) == 2, 90)
    children = [int(line[2]) for line in sweeps.lines("start")]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: all(leases._start_time(pid) is None for pid in children), 20)


@pytest.mark.slow
def test_a_trial_that_kills_its_workers_fails_and_the_others_go_on(sweeps):
    process = sweeps.start("lora.r=8,16,24", "sweep.workers=2", "sweep.max_retries=0", die_after="lora.r=16")
    output, _ = process.communicate(timeout=180)
    assert process.returncode in (0, 2), output


def test_a_silent_worker_loses_its_trial_by_the_lease(sweeps, wait_until):
    process = sweeps.start("lora.r=8", "sweep.lease_s=1", evals=3, sleep_s=0.4)
    wait_until(lambda: sweeps.lines("start"), 60)
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        sweeps.run("lora.r=8", "sweep.lease_s=1", evals=3)
        assert sweeps.states() == ["COMPLETE"]
        value = sweeps.study().trials[0].value
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    assert "given to another worker" in output and process.returncode == 0
    assert sweeps.states() == ["COMPLETE"] and sweeps.study().trials[0].value == value


def test_torn_journal_tail_and_left_over_lock_are_repaired(sweeps, capsys):
    run = (*FOUR, "sweep.storage=study.log", "sweep.study_name=j")
    sweeps.run(*run)
    file = sweeps.folder / "study.log"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code":8,"worker_id":"x","trial')
    lock = sweeps.folder / "study.log.lock"
    lock.symlink_to(file)
    os.utime(lock, (time.time() - 100, time.time() - 100), follow_symlinks=False)
    sweeps.clear_log()
    began = time.monotonic()
    sweeps.run(*run)
    assert time.monotonic() - began < 15 and sweeps.lines("start") == []
    said = capsys.readouterr().out
    assert "cut off a last line that was never finished (35 bytes)" in said
    assert "removed a lock" in said and not lock.exists()
    assert file.read_bytes().startswith(whole)


def test_a_journal_with_a_torn_line_in_its_middle_is_mended(tmp_path):
    lines = [json.dumps({"op_code": 1, "worker_id": "w", "n": n}).replace(" ", "") for n in range(3)]
    file = tmp_path / "study.log"
    file.write_text(lines[0] + "\n" + lines[1][:20] + lines[2] + "\n")
    assert list(open_journal(file).read_logs(0)) == [json.loads(lines[0]), json.loads(lines[2])]
    assert Path(f"{file}.broken").read_text().startswith(lines[0])
    file.write_text(lines[0] + "\nnonsense\n" + lines[1] + "\n")
    with pytest.raises(UserError, match="line 2 cannot be read"):
        open_journal(file)


def test_appending_behind_a_torn_line_keeps_a_live_journal_readable(tmp_path):
    file = tmp_path / "study.log"
    journal = open_journal(file)
    journal.append_logs([{"op_code": 1, "n": 1}])
    with open(file, "ab") as other:
        other.write(b'{"op_code":1,"n"')  # another writer dies here
    journal.append_logs([{"op_code": 1, "n": 2}])
    assert [log["n"] for log in journal.read_logs(0)] == [1, 2]


@pytest.mark.slow
def test_full_disk_is_one_line_and_loses_nothing(sweeps, monkeypatch):
    sweeps.run("lora.r=8,16", "sweep.study_name=s")
    connect = sqlite3.connect

    def cramped(*args, **kwargs):
        connection = connect(*args, **kwargs)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")
        return connection

    monkeypatch.setattr("sqlite3.dbapi2.connect", cramped)
    wide = "lora.r=" + ",".join(map(str, range(1, 17)))
    with pytest.raises(UserError, match="disk is full; what was finished is safe") as caught:
        sweeps.run(wide, "sweep.study_name=s")
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert sweeps.states("s")[:2] == ["COMPLETE", "COMPLETE"]


def test_full_disk_inside_a_trial_stops_the_sweep_and_fails_no_trial(sweeps, monkeypatch):
    import errno

    import toy

    def full(cfg):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(toy, "loss_of", full)
    with pytest.raises(UserError, match="disk is full"):
        sweeps.run("lora.r=8,16")
    assert sweeps.states() == ["RUNNING"]
    monkeypatch.undo()
    sweeps.run("lora.r=8,16")
    complete_once(sweeps.study(), 2)
