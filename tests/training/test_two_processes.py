"""One trial spread over two processes (torchrun, gloo) learns what one process learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parents[1] / "kits"

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from engine_kit import LABELS, Records, text_rows, tiny_head
from emotion_sweeps.training.solo import train_head

records = Records()
outcome = train_head(
    tiny_head(), text_rows(21), text_rows(20, 1), label_names=LABELS, multilabel=True, head_modules=["classifier"],
    head_learning_rate=2e-2, pad_id=1, seed=3, device=torch.device("cpu"), precision="fp32", global_batch_size=8,
    micro_batch_size=3, eval_batch_size=16, epochs=2, learning_rate=1e-2, weight_decay=0.01, scheduler="linear",
    warmup=2, selection_metric="loss", on_record=records, log_every=1, max_grad_norm=0.3,
)
rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
with open(f"{sys.argv[2]}/{rank}.json", "w") as out:
    json.dump(dict(train=[r["loss"] for r in records.of("train")], evaluations=outcome.evaluations), out)
"""


def run(folder: Path, *launcher: str) -> list[dict]:
    folder.mkdir()
    script = folder / "trial.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(script), str(HERE), str(folder)]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=300)
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    (alone,) = run(tmp_path / "one")
    first, second = run(tmp_path / "two", "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29613")
    np.testing.assert_allclose(first["train"], alone["train"], rtol=1e-5)
    assert second["train"] == []  # only the first process tells
    for key in ("loss", "macro_f1"):
        one, two = ([e["metrics"][key] for e in part["evaluations"]] for part in (alone, first))
        np.testing.assert_allclose(two, one, rtol=1e-4)
    assert second["evaluations"] == first["evaluations"]
