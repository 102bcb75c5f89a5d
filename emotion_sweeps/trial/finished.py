"""What a run folder already holds: a finished trial, never written over, or the checkpoint of an unfinished one.

Free of torch, so that the command line can look before anything is written. Two configs are the same trial when they
differ only in how it is run (`HOW_ONLY`), listened to or named.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.errors import UserError
from emotion_sweeps.paths import RESULT_FILE
from emotion_sweeps.tracking.records import jsonl_safe
from emotion_sweeps.trial.result import public_config, write_json

HOW_ONLY = ("tracking", "hardware", "name")
MARK_FILE = "trial.json"


def learned_part(conf: TrainConf) -> Any:
    """The part of a config that decides what a trial learns, in JSON types."""
    part = {key: value for key, value in public_config(conf).items() if key not in HOW_ONLY}
    part["training"] = {k: v for k, v in part["training"].items() if k not in ("resume", "log_every", "predict_test")}
    del part["model"]["learning_rate"]  # only where lora.learning_rate comes from
    return json.loads(json.dumps(jsonl_safe(part)))


def finished_result(conf: TrainConf, run_dir: Path) -> dict[str, Any] | None:
    """The result of this same trial, if the folder holds it finished.

    Raises:
        UserError: the folder holds another finished trial.
    """
    try:
        result: dict[str, Any] = json.loads((run_dir / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if result.get("status") != "complete":
        return None
    if not _agree(learned_part(conf), result.get("config") or {}):
        raise UserError(f"{run_dir} holds another finished trial ({result.get('name')}); choose another folder")
    return result


def _agree(ours: Any, theirs: Any) -> bool:
    """Whether two configs say the same wherever both speak: an older version wrote fewer keys."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(_agree(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())
    return bool(ours == theirs)


def claim_checkpoints(conf: TrainConf, folder: Path, fingerprint: str) -> None:
    """Mark a checkpoint folder with its trial; with training.resume=false it is emptied first.

    Raises:
        UserError: it holds a checkpoint that was written under other settings or for other data.
    """
    ours = {"config": learned_part(conf), "fingerprint": fingerprint}
    if not conf.training.resume:
        shutil.rmtree(folder, ignore_errors=True)
    elif any(folder.glob("checkpoint-*")):
        try:
            same = json.loads((folder / MARK_FILE).read_text(encoding="utf-8")) == ours
        except (OSError, ValueError):
            same = False
        if not same:
            raise UserError(
                f"{folder} holds a checkpoint of other settings or data; choose another hydra.run.dir, or start anew "
                "with training.resume=false"
            )
    write_json(folder / MARK_FILE, ours)
