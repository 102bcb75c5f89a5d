"""Packed engine against the plain Trainer + PEFT script on the same grid, on a CPU: the ratio of wall times.

    python benchmarks/bench_packed_cpu.py --peer PATH/peer_trainer_sweep.py --base FOLDER --train F --val F --labels F
        [--texts 2000] [--epochs 2] [--ranks 16,24,32] [--schedulers linear,cosine] [--ablation] [--quick]

Both sides run in processes of their own, one after the other, from start to exit: imports, loading, training,
evaluation each epoch. The same texts, batch size, pooling, pos_weight, learning rates, schedulers and epochs. A
comparison counts when both have learned: macro-F1 at thresholds well above that of answering nothing. `--ablation` runs
our side with one lever off at a time: packing, bf16, length buckets. Prints one JSON summary last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 16


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="the peer script; left out, only our side runs")
    parser.add_argument("--base", type=Path, help="folder of the base model (the peer loads it by path)")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--val-texts", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--ranks", default="16,24,32")
    parser.add_argument("--schedulers", default="linear,cosine")
    parser.add_argument("--slots", default="null")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--quick", action="store_true", help="200 texts, 1 epoch, 2 trials: does it run")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def ours(args: argparse.Namespace, folder: Path, *changes: str) -> dict[str, Any]:
    """Our side: the product's own command, from a fresh process."""
    overrides = [
        "-m",
        "hydra/launcher=packed",
        "hydra/sweeper=basic",
        f"hydra.sweep.dir={folder}",
        f"hydra.launcher.slots={args.slots}",
        "model=minilm",
        "data=files",
        "data.name=goemotions",
        f"data.train={args.train}",
        f"data.validation={args.val}",
        f"data.labels={args.labels}",
        f"data.max_samples={args.texts}",
        f"data.max_eval_samples={args.val_texts}",
        "data.max_length=64",
        "data.drop_leaks=false",
        f"lora.r={args.ranks}",
        "lora.alpha_ratio=2",
        "lora.dropout=0.05",
        "lora.learning_rate=1e-3",
        "lora.head_learning_rate=1e-2",
        f"scheduler={args.schedulers}",
        "scheduler.warmup_steps=0.06",
        "task.weighting=sqrt",
        "task.weight_cap=5",
        f"training.epochs={args.epochs}",
        f"training.global_batch_size={BATCH}",
        "training.max_grad_norm=1.0",
        "training.predict_test=false",
        "tracking=jsonl",
        *changes,
    ]
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "emotion_sweeps.train", *overrides], check=True)
    wall_s = time.perf_counter() - begin
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]
    trials = [
        {
            "r": result["lora"]["r"],
            "scheduler": result["scheduler"],
            "val_loss": round(result["final"]["metrics"]["loss"], 4),
            "best_val_loss": round(result["best"]["loss"]["value"], 4),
            "macro_f1": round(result["best"]["macro_f1"]["value"], 4),
            "train_s": round(result["train_time_s"], 1),
            "packed_with": result.get("packed_with"),
            "precision": result["precision"],
        }
        for result in results
    ]
    return {"wall_s": round(wall_s, 1), "trials": trials}


def peer(args: argparse.Namespace) -> dict[str, Any]:
    """The other side, unchanged."""
    command = [sys.executable, str(args.peer), "--base", str(args.base), "--train", str(args.train)]
    command += ["--val", str(args.val), "--labels", str(args.labels), "--format", "goemotions"]
    command += ["--limit", str(args.texts), "--val-limit", str(args.val_texts), "--epochs", str(args.epochs)]
    command += ["--ranks", args.ranks, "--schedulers", args.schedulers, "--batch", str(BATCH)]
    begin = time.perf_counter()
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [line for line in out.splitlines() if line.startswith("{'r'")]
    return {"wall_s": round(time.perf_counter() - begin, 1), "trials": [eval(line, {}) for line in lines]}  # noqa: S307


def main() -> None:
    args = arguments()
    if args.quick:
        args.texts, args.val_texts, args.epochs, args.ranks, args.schedulers = 200, 100, 1, "16", "linear,cosine"
    summary: dict[str, Any] = {"arguments": {k: str(v) for k, v in vars(args).items()}}
    with tempfile.TemporaryDirectory() as scratch:
        if args.peer is not None:
            summary["peer"] = peer(args)
        summary["packed"] = ours(args, Path(scratch) / "packed")
        if args.ablation:
            summary["fp32"] = ours(args, Path(scratch) / "fp32", "hardware.precision=fp32")
            args.slots = "1"
            summary["one slot"] = ours(args, Path(scratch) / "one")
            summary["solo engine"] = ours(args, Path(scratch) / "solo", "hydra/launcher=basic", "~hydra.launcher.slots")
    if "peer" in summary:
        summary["times_faster"] = round(summary["peer"]["wall_s"] / summary["packed"]["wall_s"], 2)
    text = json.dumps(summary, indent=2)
    if args.out is not None:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
