"""Opening time of leaderboard.html in headless Chromium, from navigation to a table that sorts and plots that stand.

    python benchmarks/bench_html.py [--trials 2000] [--repeats 3] [--keep FOLDER]

Makes a study of synthetic trials (fixed seed), writes the page as `emotion-sweeps report` does, opens it from disk in a
fresh browser each time, and prints file size, writing time and opening times as one JSON line. Needs Chromium, its
driver and selenium.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

LABELS = ["anger", "anticipation", "disgust", "fear", "joy", "love", "optimism", "pessimism", "sadness", "surprise"]
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync", "--window-size=1280,900"),
)
_RANKS = (8, 16, 24, 32, 48, 64)


def synthetic_study(folder: Path, trials: int, *, seed: int = 0, evaluations: int = 8) -> None:
    """Run folders of `trials` trials, nine in ten of them complete; the loss depends on the settings."""
    rng = random.Random(seed)
    for number in range(trials):
        run = folder / str(number)
        run.mkdir(parents=True)
        result, records = _trial(rng, number, evaluations)
        (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
        (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _trial(rng: random.Random, number: int, evaluations: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lora = {
        "r": rng.choice(_RANKS),
        "dropout": rng.choice([0.0, 0.05, 0.1]),
        "target_modules": rng.choice(["all-linear", "attention"]),
        "learning_rate": 10 ** rng.uniform(-4.3, -2.6),
    }
    lora["alpha"] = float(lora["r"] * rng.choice([1, 2]))
    scheduler, augment = rng.choice(["linear", "cosine", "constant"]), rng.choice(["none", "eda"])
    floor = 0.315 + 0.05 * (scheduler == "constant") + 0.06 * abs(math.log10(lora["learning_rate"]) + 3.3)
    floor += 0.012 * (lora["r"] < 16) - 0.008 * (augment == "eda") + rng.gauss(0, 0.006)
    if rng.random() < 0.01:
        floor += rng.uniform(0.5, 3.0)  # diverged
    name = f"exp{number}_r{lora['r']}_a{lora['alpha']:g}_d{lora['dropout']:g}_{scheduler}"
    status = rng.choices(["complete", "pruned", "failed"], [90, 8, 2])[0]
    config: dict[str, Any] = {
        "model": {"name": "minilm"},
        "task": {"name": "multilabel_head", "weighting": "none", "label_smoothing": 0.0},
        "lora": lora,
        "scheduler": {"name": scheduler, "warmup_steps": 0.06},
        "augment": {"name": augment},
        "data": {"name": "demo", "split_seed": 0},
        "training": {"epochs": 4.0, "global_batch_size": 16},
        "seed": 0,
    }
    head = {"schema": 1, "name": name, "status": status, "trial_number": number, "config": config, "lora": lora}
    head |= {"scheduler": scheduler, "augment": augment, "model": "minilm", "task": "multilabel_head"}
    head["data"] = {"name": "demo", "fingerprint": "a" * 64, "label_names": LABELS, "num_validation": 600}
    head |= {"trainable_parameters": 9_000 * lora["r"], "wall_time_s": 40 + lora["r"] + rng.random() * 20}
    if status == "failed":
        return {**head, "error": {"class": "OutOfMemoryError", "message": "CUDA out of memory"}}, []
    done = evaluations if status == "complete" else rng.randint(1, evaluations // 2)
    records = _records(rng, floor, done, evaluations)
    evals = [record for record in records if record["kind"] == "eval"]
    best, best_f1 = min(evals, key=lambda e: e["loss"]), max(evals, key=lambda e: e["macro_f1"])
    at = {key: best[key] for key in ("step", "epoch")}
    head["objective"] = {"metric": "loss", "direction": "minimize", "value": best["loss"], **at}
    head["best"] = {
        "loss": {"value": best["loss"], **at},
        "macro_f1": {"value": best_f1["macro_f1"], "step": best_f1["step"], "epoch": best_f1["epoch"]},
    }
    head["kept"] = {**at, "metrics": {key: best[key] for key in ("loss", "macro_f1")}}
    last = evals[-1]
    head["final"] = {
        "step": last["step"],
        "epoch": last["epoch"],
        "metrics": {k: last[k] for k in ("loss", "macro_f1")},
    }
    head["per_label"] = [_label(rng, label, best["macro_f1"]) for label in LABELS]
    return head, records


def _records(rng: random.Random, floor: float, done: int, evaluations: int) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for at in range(1, done * 10 + 1):
        epoch = 4 * at / (evaluations * 10)
        decay = 2.718 ** (-1.6 * epoch)
        train = floor - 0.02 * epoch / 4 + 0.35 * decay + rng.gauss(0, 0.012)
        records.append({"kind": "train", "step": at * 10, "epoch": epoch, "loss": train})
        if at % 10 == 0:
            loss = floor + 0.30 * decay + 0.004 * max(0.0, epoch - 3) + rng.gauss(0, 0.002)
            f1 = max(0.02, 0.98 - 1.32 * loss - 0.15 * decay + rng.gauss(0, 0.008))
            record = {"kind": "eval", "split": "validation", "step": at * 10, "epoch": epoch}
            records.append({**record, "loss": loss, "macro_f1": f1})
    return records


def _label(rng: random.Random, label: str, macro_f1: float) -> dict[str, Any]:
    precision, recall = (min(0.97, max(0.05, macro_f1 + rng.gauss(0, 0.12))) for _ in range(2))
    f1 = 2 * precision * recall / (precision + recall)
    return {"label": label, "support": rng.randint(20, 240), "precision": precision, "recall": recall, "f1": f1}


def write_page(study: Path, out: Path) -> float:
    """Write the report; the time it took."""
    from emotion_sweeps.report.build import build_report

    def no_corpus(config: dict[str, Any]) -> Any:
        raise LookupError("synthetic trials have no corpus")

    begin = time.perf_counter()
    build_report([study], out, no_corpus, baseline=False)
    return time.perf_counter() - begin


def opening_times(page: Path, profile: Path) -> dict[str, float]:
    """Seconds from navigation until the table sorts, plotly.js runs, and what is in the window is drawn."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.get(page.resolve().as_uri())
        marks = "return performance.getEntriesByType('mark').map(m => [m.name, m.startTime])"
        wait = WebDriverWait(driver, 60, poll_frequency=0.02)
        found = wait.until(lambda d: (seen := dict(d.execute_script(marks))) and "plots-ready" in seen and seen)
        drawn = driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => setTimeout(() => done(performance.now())))"
        )
        ready = {"table_s": found["table-ready"], "plotly_s": found["plots-ready"], "drawn_s": drawn}
        return {name: value / 1000 for name, value in ready.items()}
    finally:
        driver.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="where to leave the study and the page")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = args.keep or Path(scratch)
        study = root / "study"
        if not study.exists():
            synthetic_study(study, args.trials)
        write_s = write_page(study, root / "out")
        page = root / "out" / "leaderboard.html"
        page_mib = page.stat().st_size / 2**20
        times = [opening_times(page, Path(scratch) / f"profile{number}") for number in range(args.repeats)]
    about = {"trials": args.trials, "report_s": round(write_s, 1), "page_mib": round(page_mib, 2)}
    medians = {key: round(statistics.median(one[key] for one in times), 2) for key in times[0]}
    where = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(json.dumps({**about, **medians, "date": datetime.date.today().isoformat(), "machine": where}))


if __name__ == "__main__":
    main()
