"""Several processes on one PostgreSQL study; the server is started here, and the tests skip where there is none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from emotion_sweeps.sweeps.storage import open_storage

pytestmark = pytest.mark.slow


def binary(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server of our own; as root it runs as the user postgres, because initdb refuses root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    initdb, postgres = binary("initdb"), binary("postgres")
    if not initdb or not postgres:
        pytest.skip("no PostgreSQL server is installed (initdb, postgres)")
    prefix: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if os.getuid() == 0:
        if subprocess.run(["id", "postgres"], capture_output=True).returncode or not shutil.which("runuser"):
            pytest.skip("initdb refuses root, and there is no user postgres to run it as")
        prefix = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [*prefix, initdb, "-D", str(data), "-A", "trust", "-U", "sweeper"], check=True, capture_output=True, cwd="/"
    )
    process = subprocess.Popen(
        [*prefix, postgres, "-D", str(data), "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
    )  # fmt: skip
    try:
        import time

        import psycopg

        for _ in range(100):
            try:
                psycopg.connect(f"host=127.0.0.1 port={port} user=sweeper dbname=postgres").close()
                break
            except psycopg.OperationalError:
                time.sleep(0.1)
        yield f"postgresql://sweeper@127.0.0.1:{port}/postgres"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def test_four_processes_on_one_study_forty_cells_one_killed(sweeps, wait_until, server):
    cells = ("lora.r=range(1,21)", "scheduler=linear,cosine", f"sweep.storage={server}", "sweep.study_name=forty")
    # Four commands, as four machines would give them; the killed one is noticed by its process on this machine.
    processes = [sweeps.start(*cells, sleep_s=0.3, result=True) for _ in range(4)]
    wait_until(lambda: len(sweeps.lines("end")) >= 20, 180)
    victim = processes[1]
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    for process in (processes[0], *processes[2:]):
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 0, output
    study = optuna.load_study(study_name="forty", storage=server.replace("postgresql:", "postgresql+psycopg:"))
    assert Counter(t.state.name for t in study.trials) == {"COMPLETE": 40}
    assert len({tuple(t.params.items()) for t in study.trials}) == 40
    assert sorted(t.number for t in study.trials) == list(range(40))
    ends = Counter(line[1] for line in sweeps.lines("end"))
    assert set(ends.values()) == {1} and len(ends) == 40
    workers = {line[2] for line in sweeps.lines("end")}
    assert len(workers) == 4


def test_the_row_lock_excludes_and_is_dropped_with_its_connection(server, tmp_path):
    first, second = (open_storage(server, tmp_path, "locks") for _ in range(2))
    order: list[str] = []
    with first.mutex.held():
        thread = threading.Thread(target=lambda: second.mutex.held().__enter__() and order.append("second"))

        def take() -> None:
            with second.mutex.held():
                order.append("second")

        thread = threading.Thread(target=take)
        thread.start()
        thread.join(timeout=1)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
    assert abs(first.now() - second.now()) < 5


def test_a_lease_runs_out_by_the_servers_clock(sweeps, wait_until, server):
    run = ("lora.r=8", f"sweep.storage={server}", "sweep.study_name=lease", "sweep.lease_s=1")
    process = sweeps.start(*run, evals=3, sleep_s=0.4)
    wait_until(lambda: sweeps.lines("start"), 60)
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        sweeps.run(*run, evals=3)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    assert "given to another worker" in output and process.returncode == 0
