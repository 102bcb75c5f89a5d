"""Run folders read back: one `RunRow` a result.json, and what could not be read told instead of raised.

Everything in a result.json may be missing or of another type (a killed process, an older version, a file edited by
hand); a row then holds None there. Nothing is imported that a report could do without.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_sweeps.errors import UserError
from emotion_sweeps.paths import ADAPTER_DIR, CHECKPOINTS_DIR, PREDICTIONS_DIR, RESULT_FILE

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
STATUSES = (COMPLETE, PRUNED, FAILED)
MULTIRUN_FILE = "multirun.yaml"  # Hydra's mark of a sweep's folder
_JOB_FILE = Path(".hydra") / "config.yaml"  # Hydra's mark of a job's folder
_NO_RUNS_BELOW = {ADAPTER_DIR, CHECKPOINTS_DIR, PREDICTIONS_DIR, ".hydra", "wandb", "tensorboard", "__pycache__"}
_REPLICATE = re.compile(r"seed_\d+")


@dataclass(frozen=True)
class Point:
    """One evaluation: a metric's value, and where in training it was reached."""

    value: float
    step: int | None
    epoch: float | None


@dataclass(frozen=True)
class RunRow:
    """One run, as its result.json tells it."""

    folder: Path
    name: str
    status: str
    number: int | None = None
    model: str | None = None
    task: str | None = None
    augment: str | None = None
    scheduler: str | None = None
    data_name: str | None = None
    fingerprint: str | None = None
    validation_fingerprint: str | None = None  # of the validation part alone
    label_names: tuple[str, ...] = ()
    num_validation: int | None = None
    objective_metric: str | None = None
    best: Mapping[str, Point] = field(default_factory=dict)
    kept: Mapping[str, Point] = field(default_factory=dict)  # validation metrics of the weights on disk
    final: Mapping[str, Point] = field(default_factory=dict)
    lora: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    trainable_parameters: int | None = None
    wall_time_s: float | None = None
    stopped_early: bool = False
    stand_in: bool = False
    error: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best_loss(self) -> Point | None:
        """The lowest validation loss."""
        return self.best.get("loss")

    @property
    def best_macro_f1(self) -> Point | None:
        """The highest validation macro-F1."""
        return self.best.get("macro_f1")


@dataclass(frozen=True)
class Runs:
    """What was found below some folders; `problems` is one sentence for each thing that is not as it should be."""

    rows: list[RunRow]
    problems: list[str]


def read_runs(folders: Iterable[Path]) -> Runs:
    """Every run below the given folders (a sweep, several, or single runs), each once, in the order of their paths.

    Raises:
        UserError: a folder does not exist.
    """
    rows: list[RunRow] = []
    problems: list[str] = []
    unfinished: list[Path] = []
    for folder in _run_folders(folders):
        path = folder / RESULT_FILE
        if not path.is_file():
            unfinished.append(folder)
            continue
        try:
            row = _row(folder, _read_json(path))
        except ValueError as error:
            problems.append(f"{path}: {error}; the run is left out")
            continue
        rows.append(row)
        if row.status == COMPLETE and not row.best:
            problems.append(f"{path}: the run is complete, but holds no validation metrics")
    # A trial with replicates holds its runs in seed_<k> below it, and nothing of its own.
    unfinished = [f for f in unfinished if not any(row.folder.is_relative_to(f) for row in rows)]
    if unfinished:
        problems.append(_unfinished(unfinished))
    return Runs(rows, problems)


def latest_sweep(root: Path | str = "multirun") -> Path:
    """The sweep's folder below `root` whose newest result is the newest of all.

    Raises:
        UserError: no result.json below `root`.
    """
    results = [folder / RESULT_FILE for folder in _run_folders([Path(root)], must_exist=False)]
    written = [path for path in results if path.is_file()]
    if not written:
        raise no_results([Path(root)])
    newest = max(written, key=lambda path: path.stat().st_mtime_ns)
    return _sweep_of(newest.parent, Path(root))


def no_results(folders: Sequence[Path]) -> UserError:
    """The mistake of asking for a report before there is a run."""
    where = ", ".join(str(folder) for folder in folders)
    return UserError(
        f"no results under {where}; run a sweep first, as in: "
        "python -m emotion_sweeps.train -m lora.r=16,24,32 scheduler=linear,cosine"
    )


def _sweep_of(run: Path, root: Path) -> Path:
    """The nearest folder above a run that Hydra marked as a sweep's, else the run's own parent."""
    for above in run.parents:
        if (above / MULTIRUN_FILE).is_file():
            return above
        if above == root:
            break
    beside_replicates = run.parent.parent if _REPLICATE.fullmatch(run.name) else run.parent
    return beside_replicates if beside_replicates.is_relative_to(root) else root


def _run_folders(folders: Iterable[Path], *, must_exist: bool = True) -> Iterator[Path]:
    """Folders that hold a result.json or a Hydra job, each once; links are not followed."""
    seen: set[Path] = set()
    for top in folders:
        if must_exist and not top.is_dir():
            raise UserError(f"report: there is no folder {top}; give the folder of a sweep or of a run")
        for where, below, files in os.walk(top):
            below[:] = sorted(name for name in below if name not in _NO_RUNS_BELOW)
            folder = Path(where)
            is_run = RESULT_FILE in files or (folder / _JOB_FILE).is_file()
            if is_run and (resolved := folder.resolve()) not in seen:
                seen.add(resolved)
                yield folder


def _unfinished(folders: Sequence[Path]) -> str:
    named = ", ".join(str(folder) for folder in folders[:5]) + (", ..." if len(folders) > 5 else "")
    runs = "1 run has" if len(folders) == 1 else f"{len(folders)} runs have"
    return f"{runs} no {RESULT_FILE} (still running, or killed): {named}"


def _read_json(path: Path) -> dict[str, Any]:
    """The content of a result.json; NaN and infinities, which strict JSON has not, are None.

    Raises:
        ValueError: it is not a JSON object; the message says in what way.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not whole JSON (line {error.lineno}: {error.msg})") from None
    except (OSError, RecursionError) as error:
        raise ValueError(f"cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def _row(folder: Path, content: Mapping[str, Any]) -> RunRow:
    status = content.get("status")
    if status not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {str(status)[:40]!r}")
    data, seeds, error = (_mapping(content.get(key)) for key in ("data", "seeds", "error"))
    trainable, number, seed = (_whole(v) for v in (
        content.get("trainable_parameters"), content.get("trial_number"), seeds.get("seed")))  # fmt: skip
    names = data.get("label_names")
    return RunRow(
        folder=folder,
        name=_text(content.get("name")) or folder.name,
        status=status,
        number=number,
        model=_text(content.get("model")),
        task=_text(content.get("task")),
        augment=_text(content.get("augment")),
        scheduler=_text(content.get("scheduler")),
        data_name=_text(data.get("name")) or _text(_mapping(_mapping(content.get("config")).get("data")).get("name")),
        fingerprint=_text(data.get("fingerprint")),
        validation_fingerprint=_text(data.get("validation_fingerprint")),
        label_names=tuple(str(name) for name in names) if isinstance(names, list) else (),
        num_validation=_whole(data.get("num_validation")),
        objective_metric=_text(_mapping(content.get("objective")).get("metric")),
        best={str(k): p for k, v in _mapping(content.get("best")).items() if (p := _point(_mapping(v)))},
        kept=_points(_mapping(content.get("kept"))),
        final=_points(_mapping(content.get("final"))),
        lora=_mapping(content.get("lora")),
        seed=seed,
        trainable_parameters=trainable,
        wall_time_s=finite_number(content.get("wall_time_s")),
        stopped_early=content.get("stopped_early") is True,
        stand_in=content.get("stand_in") is True,
        error=_error(error),
        config=_mapping(content.get("config")),
    )


def _error(error: Mapping[str, Any]) -> str | None:
    parts = [_text(error.get("class")), _text(error.get("message"))]
    return ": ".join(part for part in parts if part) or None


def _points(part: Mapping[str, Any]) -> dict[str, Point]:
    """Every metric of one evaluation, as points of the same step."""
    metrics = {str(k): finite_number(v) for k, v in _mapping(part.get("metrics")).items()}
    step, epoch = _whole(part.get("step")), finite_number(part.get("epoch"))
    return {name: Point(value, step, epoch) for name, value in metrics.items() if value is not None}


def _point(part: Mapping[str, Any]) -> Point | None:
    value = finite_number(part.get("value"))
    return None if value is None else Point(value, _whole(part.get("step")), finite_number(part.get("epoch")))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def finite_number(value: Any) -> float | None:
    """A number as a float, None for anything else: texts, booleans, infinities, whole numbers beyond floats."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        plain = float(value)
    except OverflowError:
        return None
    return plain if math.isfinite(plain) else None


def _whole(value: Any) -> int | None:
    number = finite_number(value)
    return int(number) if number is not None and number == int(number) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None
