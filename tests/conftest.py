"""Shared by all tests: an own cache, no network, quiet trackers, and skips that fail where everything must be there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: a second thread costs more than it brings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for the whole test session, so that twins are built once and nothing of the user's is touched."""
    before = os.environ.get("EMOTION_SWEEPS_CACHE")
    folder = tmp_path_factory.mktemp("cache")
    os.environ["EMOTION_SWEEPS_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["EMOTION_SWEEPS_CACHE"]
    else:
        os.environ["EMOTION_SWEEPS_CACHE"] = before


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With EMOTION_SWEEPS_NO_SKIPS=1 a skipped test counts as failed: the tool that it lacks has to be there."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("EMOTION_SWEEPS_NO_SKIPS") == "1" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {reason}"
