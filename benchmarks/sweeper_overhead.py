"""What the sweep itself costs a trial: the same no-op objective under Hydra's own sweeper and under the study sweeper.

    python benchmarks/sweeper_overhead.py [--cells 40] [--storage sqlite|journal|URL]

Two figures a trial: the wall time of everything (config composition and `.hydra/` included, which Hydra does for any
sweeper), and the part that is ours (claim, report, question to the pruner, finish, clearing up). The goal is < 50 ms.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra

from emotion_sweeps.config.register import register
from emotion_sweeps.handle import current_handle
from emotion_sweeps.paths import conf_dir

OURS = ("claim", "report", "decide", "finish", "trials")
spent: dict[str, float] = defaultdict(float)
depth = 0


def timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """`method`, its time added to `spent` where no other timed one is under way."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        global depth
        depth += 1
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            depth -= 1
            if depth == 0:
                spent[name] += time.perf_counter() - start

    return wrapper


def no_op(cfg: Any) -> float:
    """An objective that costs nothing: one report, one question."""
    handle = current_handle()
    handle.report(1, 1.0, {"loss": float(cfg.lora.r)})
    handle.should_stop()
    return float(cfg.lora.r)


def run(folder: Path, cells: int, *overrides: str) -> float:
    """Wall time of one sweep in seconds."""
    register()
    ranks = ",".join(str(1 + i) for i in range(cells))
    sys.argv = [
        "benchmark",
        "-m",
        f"lora.r={ranks}",
        "hydra/job_logging=disabled",
        "hydra/hydra_logging=disabled",
        *overrides,
    ]
    os.chdir(folder)
    start = time.perf_counter()
    hydra.main(config_path=str(conf_dir()), config_name="train")(no_op)()
    return time.perf_counter() - start


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--storage", default="sqlite")
    parser.add_argument("--pruner", default="none")
    args = parser.parse_args()
    from emotion_sweeps.sweeps.study_source import StudySource
    from emotion_sweeps.sweeps.worker_spec import AfterTrial

    for name in OURS:
        setattr(StudySource, name, timed(name, getattr(StudySource, name)))
    AfterTrial.__call__ = timed("clear up", AfterTrial.__call__)  # type: ignore[method-assign]
    storage = {"sqlite": "null", "journal": "study.log"}.get(args.storage, args.storage)
    with tempfile.TemporaryDirectory() as folder:
        basic = run(Path(folder), args.cells, "hydra/sweeper=basic", "hydra.sweep.dir=basic")
        spent.clear()
        study = run(
            Path(folder), args.cells, "hydra/sweeper=study", f"sweep.storage={storage}", f"sweep.pruner={args.pruner}"
        )
        os.chdir("/")
    ms = 1000 / args.cells
    print(f"{args.cells} trials, storage {args.storage}, pruner {args.pruner}")
    print(f"{'':28}ms a trial")
    print(f"{'hydra/sweeper=basic, all':28}{basic * ms:10.1f}")
    print(f"{'hydra/sweeper=study, all':28}{study * ms:10.1f}")
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{'  of it ' + name:28}{seconds * ms:10.1f}")
    print(f"{'  ours in all (goal < 50)':28}{sum(spent.values()) * ms:10.1f}")


if __name__ == "__main__":
    main()
