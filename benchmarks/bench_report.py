"""The report on a large synthetic study: seconds and peak memory.

    python benchmarks/bench_report.py --trials 10000

Writes run folders with result.json and metrics.jsonl as trials leave them (11 labels, 8 evaluations), then builds the
whole report in a process of its own and measures that. The TF-IDF row is left out: it is fitted once and then cached.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LABELS = "anger anticipation disgust fear joy love optimism pessimism sadness surprise trust".split()
STATUSES = ("complete", "pruned", "failed")


def write_trial(folder: Path, number: int, rng: np.random.Generator) -> None:
    """One run folder of a random search."""
    from emotion_sweeps.config.compose import as_container, compose

    r, ratio = int(rng.choice([8, 16, 24, 32, 64])), int(rng.choice([1, 2, 4]))
    dropout, rate = float(rng.choice([0.0, 0.05, 0.1])), float(np.exp(rng.uniform(np.log(1e-4), np.log(3e-3))))
    scheduler = str(rng.choice(["linear", "cosine"]))
    loss = 0.4 + 0.02 * (np.log(rate) + 7.5) ** 2 + 0.01 * (scheduler == "cosine") + 0.01 * float(rng.normal())
    if not hasattr(write_trial, "config"):
        write_trial.config = json.dumps(as_container(compose([])))  # type: ignore[attr-defined]
    config = json.loads(write_trial.config)  # type: ignore[attr-defined]
    config["lora"] |= {"r": r, "alpha": None, "alpha_ratio": float(ratio), "dropout": dropout, "learning_rate": rate}
    config["scheduler"]["name"] = scheduler
    metrics = {"loss": loss, "macro_f1": 0.9 - loss, "micro_f1": 0.95 - loss}
    point = {name: {"value": value, "step": 200, "epoch": 3.5} for name, value in metrics.items()}
    status = str(rng.choice(STATUSES, p=[0.8, 0.17, 0.03]))
    content = {
        "schema": 1,
        "name": f"exp{number}_r{r}_a{r * ratio}_{scheduler}",
        "trial_number": number,
        "status": status,
        "objective": {"metric": "loss", "direction": "minimize", **point["loss"]},
        "best": point,
        "kept": {"step": 200, "epoch": 3.5, "metrics": metrics},
        "final": {"step": 248, "epoch": 4.0, "metrics": {k: v + 0.001 for k, v in metrics.items()}},
        "lora": {"r": r, "alpha": float(r * ratio), "dropout": dropout, "learning_rate": rate,
                 "head_learning_rate": 10 * rate, "target_modules": "all-linear"},
        "scheduler": scheduler, "model": "minilm", "task": "multilabel_head", "augment": "none",
        "per_label": [{"label": n, "support": 40, "precision": 0.5, "recall": 0.5, "f1": 0.5, "threshold": 0.4}
                      for n in LABELS],
        "memory": [{"kind": "memory", "phase": "train", "before_gib": 0.5, "peak_gib": 0.7, "after_gib": 0.6}] * 13,
        "data": {"name": "demo", "fingerprint": "a" * 64, "label_names": LABELS, "num_validation": 207},
        "trainable_parameters": 41_472 * r, "wall_time_s": float(rng.uniform(60, 120)), "seeds": {"seed": 0},
        "error": {"class": "RuntimeError", "message": "CUDA out of memory"} if status == "failed" else None,
        "config": config,
    }  # fmt: skip
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").touch()
    (folder / "result.json").write_text(json.dumps(content, indent=2))
    curve = ({"kind": "eval", "split": "validation", "step": 31 * (i + 1), "epoch": (i + 1) / 2,
              "loss": loss + 0.1 / (i + 1)} for i in range(8))  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in curve))


def measure(folder: Path, out: Path) -> None:
    """Build the report in this process and say what it took."""
    from emotion_sweeps.report.build import build_report

    started = time.perf_counter()
    report = build_report([folder], out, lambda config: None, baseline=False)  # type: ignore[arg-type, return-value]
    seconds = time.perf_counter() - started
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size_mib = sum(path.stat().st_size for path in report.paths) / 2**20
    print(f"{len(report.runs):,} runs: {seconds:.1f} s, peak {peak_gib:.2f} GiB, {size_mib:.1f} MiB written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--measure", nargs=2, type=Path, metavar=("FOLDER", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    with tempfile.TemporaryDirectory() as name:
        sweep = Path(name) / "sweep"
        sweep.mkdir()
        (sweep / "multirun.yaml").touch()
        rng = np.random.default_rng(0)
        for number in range(arguments.trials):
            write_trial(sweep / str(number), number, rng)
        print(f"{platform.machine()}, Python {platform.python_version()}", flush=True)
        subprocess.run([sys.executable, __file__, "--measure", str(sweep), str(Path(name) / "out")], check=True)


if __name__ == "__main__":
    main()
