"""A sweep app without torch: a small config (or the product's own) with a quick objective.

`EMOTION_SWEEPS_TOY` is JSON: evals (reports a trial), sleep_s (before each), fail (substring of the overrides that
fail), error (the class), flaky (fail the first attempt only), log (file that gets a line a start
and end), nan, drop_metric, result (write one), die_after (substring: exit at the end of the first attempt).
"""

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

from emotion_sweeps.config.register import register
from emotion_sweeps.config.schema import SweepConf
from emotion_sweeps.errors import UserError
from emotion_sweeps.handle import current_handle
from emotion_sweeps.paths import conf_dir

register()


@dataclass
class ToyConf:
    """The product's sweep knobs; the rest of the toy's config is free."""

    sweep: SweepConf = field(default_factory=SweepConf)
    lora: Any = None
    training: Any = None
    hardware: Any = None
    objective: Any = None
    tracking: Any = None
    model: Any = None
    scheduler: Any = None
    seed: int = 0


ConfigStore.instance().store(name="toy_schema", node=ToyConf)


def loss_of(cfg) -> float:
    """Best at r=24, alpha 48, cosine."""
    alpha = cfg.lora.alpha or cfg.lora.alpha_ratio * cfg.lora.r
    learning_rate = abs(cfg.lora.learning_rate - 1e-3)
    return abs(cfg.lora.r - 24) / 100 + abs(alpha - 48) / 1000 + (cfg.scheduler.name == "linear") * 0.05 + learning_rate


def note(settings: dict, line: str) -> None:
    if settings.get("log"):
        with open(settings["log"], "a") as file:
            file.write(line + "\n")


def write(path: Path, text: str) -> None:
    """Whole or not at all, as a real checkpoint is written: this app gets killed at any moment."""
    path.with_suffix(".tmp").write_text(text)
    os.replace(path.with_suffix(".tmp"), path)


def toy(cfg):
    settings = json.loads(os.environ.get("EMOTION_SWEEPS_TOY", "{}"))
    handle, folder = current_handle(), Path(HydraConfig.get().runtime.output_dir)
    overrides = " ".join(HydraConfig.get().overrides.task)
    note(settings, f"start {handle.number} {os.getpid()} {overrides}")
    seen = folder / "attempts"
    attempts = int(seen.read_text()) if seen.exists() else 0
    write(seen, str(attempts + 1))
    if settings.get("fail") and settings["fail"] in overrides and not (settings.get("flaky") and attempts):
        raise {
            "ValueError": ValueError,
            "OSError": OSError,
            "UserError": UserError,
            "RuntimeError": RuntimeError,
        }[settings.get("error", "ValueError")](f"made to fail at step {os.getpid()}")
    evals, best = settings.get("evals", 1), float("inf")
    checkpoint = folder / "checkpoints" / "last"
    checkpoint.parent.mkdir(exist_ok=True)
    first = int(checkpoint.read_text()) + 1 if checkpoint.exists() else 1
    for index in range(1, evals + 1):
        value = loss_of(cfg) + (evals - index) * 0.001 + cfg.seed * 0.01
        best = min(best, value)
        if index < first:
            continue
        time.sleep(settings.get("sleep_s", 0))
        metrics = {"loss": value, "macro_f1": 1 - value}
        if settings.get("nan"):
            metrics["loss"] = best = float("nan")
        if settings.get("drop_metric"):
            metrics.pop(settings["drop_metric"])
        handle.report(10 * index, float(index), metrics)
        stop = handle.should_stop()
        write(checkpoint, str(index))
        if stop:
            break
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "weights").write_text("w")
    if settings.get("result"):
        result = {"status": "complete", "objective": {"metric": "loss", "value": best}}
        write(folder / "result.json", json.dumps(result))
    note(settings, f"end {handle.number} {os.getpid()} {overrides}")
    if settings.get("die_after") and settings["die_after"] in overrides and not attempts:
        os._exit(9)
    names = cfg.objective.metric
    values = {"loss": best, "macro_f1": 1 - best}
    return values[names] if isinstance(names, str) else {name: values[name] for name in names}


main = hydra.main(config_path=str(Path(__file__).parent / "conf"), config_name="train")(toy)
product = hydra.main(config_path=str(conf_dir()), config_name="train")(toy)

if __name__ == "__main__":
    os.environ["HYDRA_FULL_ERROR"] = "1"
    from emotion_sweeps.train import exit_code

    sys.exit(exit_code(product if "--product" in sys.argv and not sys.argv.remove("--product") else main))
