"""Record real learning curves: every cell of a grid trained to its end by the product's own command.

    python benchmarks/record_curves.py                      # MiniLM on the demo corpus, 36 cells x 8 evaluations
    python benchmarks/record_curves.py --out my.json --folder my_grid data=files data.train=posts.tsv

The grid runs under Hydra's own basic sweeper, without a pruner and without a study, so nothing that the recording is
meant to judge takes part in it. The same command again trains only the cells that are not complete. About 25 minutes
on two cores. The format is described in docs/pruning.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "sweeps" / "recordings" / "minilm_demo.json"
METRICS = ("loss", "macro_f1", "micro_f1")
GRID = [
    "lora.r=16,24,32",
    "lora.learning_rate=5e-4,1e-3,2e-3",
    "scheduler=linear,cosine",
    "lora.dropout=0.05,0.10",
    "training.epochs=4",
    "training.evals_per_epoch=2",
]
QUIET = ["tracking=jsonl", "training.predict_test=false"]


def command(folder: Path, overrides: list[str]) -> list[str]:
    """What trains the grid, without the interpreter's path."""
    return [
        "-m",
        "emotion_sweeps.train",
        "-m",
        "hydra/sweeper=basic",
        f"hydra.sweep.dir={folder}",
        *overrides,
    ]


def read_cell(folder: Path) -> dict[str, Any] | None:
    """One cell's name, settings and curves; None while it is not complete."""
    path = folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if result.get("status") != "complete":
        return None
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines if line.strip()]
    evals = {r["step"]: r for r in records if r["kind"] == "eval" and r["split"] == "validation"}
    steps = sorted(evals)
    return {
        "name": result["name"],
        "settings": {"scheduler": result["scheduler"], "seed": result["seeds"]["seed"], **result["lora"]},
        "steps": steps,
        "metrics": {m: [evals[step][m] for step in steps] for m in METRICS if m in evals[steps[0]]},
    }


def about(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Where the curves come from: the command, and what the first cell says of versions, data and hardware."""
    result = json.loads((folder / "0" / "result.json").read_text(encoding="utf-8"))
    data = {key: result["data"][key] for key in ("name", "fingerprint", "num_train", "num_validation")}
    return {
        "schema": 1,
        "command": " ".join(["python", *command(Path(folder.name), overrides)]),
        "model": result["model"],
        "task": result["task"],
        "data": data,
        "precision": result["precision"],
        "versions": result["versions"],
    }


def collect(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The whole recording of a grid's folder; stops with the cells that are missing."""
    numbers = sorted((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    cells = {path.name: read_cell(path) for path in numbers}
    missing = [name for name, cell in cells.items() if cell is None]
    if missing or not cells:
        sys.exit(f"{folder}: no complete result for cells {', '.join(missing) or '(none at all)'}")
    return {**about(folder, overrides), "cells": list(cells.values())}


def one_line_a_cell(recording: dict[str, Any]) -> str:
    """The recording as JSON that is easy to compare line by line."""
    head = json.dumps({key: value for key, value in recording.items() if key != "cells"}, indent=1)
    cells = ",\n".join("  " + json.dumps(cell) for cell in recording["cells"])
    return f'{head[:-2]},\n "cells": [\n{cells}\n ]\n}}\n'


def main() -> None:
    """Train the grid, then write the recording."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--folder", type=Path, default=ROOT / "multirun" / "recording")
    parser.add_argument("--collect-only", action="store_true", help="read a folder that is already trained")
    parser.add_argument("overrides", nargs="*", help="replace the grid's settings or add to them")
    args = parser.parse_args()
    keys = {override.partition("=")[0] for override in args.overrides}
    overrides = [o for o in GRID if o.partition("=")[0] not in keys] + QUIET + args.overrides
    if not args.collect_only:
        subprocess.run([sys.executable, *command(args.folder, overrides)], check=True, cwd=ROOT)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    recording = collect(args.folder, overrides)
    args.out.write_text(one_line_a_cell(recording), encoding="utf-8")
    print(f"{len(recording['cells'])} cells x {len(recording['cells'][0]['steps'])} evaluations: {args.out}")


if __name__ == "__main__":
    main()
