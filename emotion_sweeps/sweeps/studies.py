"""Which study a command means: found again, begun, begun afresh, or opened as the successor of one with another space.

The default name is made of the searched keys and a digest of the resolved search (space, fixed settings, objectives,
data), so the same command finds its study and another one does not. Under a name that the user gave, a changed space
opens `NAME.2`, which takes over the finished trials with their folders; another objective, or other fixed settings, are
refused.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps import ledger
from emotion_sweeps.sweeps.identity import digest
from emotion_sweeps.sweeps.objectives import Objectives
from emotion_sweeps.sweeps.space import Space
from emotion_sweeps.sweeps.storage import OpenStorage, load_study, storage_errors

log = logging.getLogger(__name__)
ABOUT = "emotion_sweeps"  # the study attribute that describes the search
SUCCESSOR, PREDECESSOR = "successor", "predecessor"
MARKER_FILE = "study.json"
NAME_CHARS = 48
FolderOf = Callable[[str], Path]


@dataclass(frozen=True)
class SearchKey:
    """The resolved search, by which a study is told from another."""

    space: list[dict[str, Any]]
    base: dict[str, Any]  # resolved fixed settings, without the searched keys
    objectives: Objectives

    def about(self) -> dict[str, Any]:
        """As JSON, kept with the study."""
        return {
            "schema": 1,
            "space": self.space,
            "base": json.loads(json.dumps(self.base, default=str)),
            "metrics": list(self.objectives.metrics),
            "directions": list(self.objectives.directions),
        }


def search_key(space: Space, training: Mapping[str, Any], objectives: Objectives) -> SearchKey:
    """The key of a search; `training` is the training part of the config with the fixed overrides alone."""
    base = json.loads(json.dumps(training, default=str))
    for key in space.keys:
        _drop(base, key.replace("/", ".").split("."))
    return SearchKey(space.signature(), base, objectives)


def _drop(node: Any, parts: Sequence[str]) -> None:
    for part in parts[:-1]:
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.pop(parts[-1], None)


def default_name(space: Space, key: SearchKey) -> str:
    """Searched keys and a digest: `r_scheduler-3f9a1c2d`."""
    words = "_".join(name.rsplit(".", 1)[-1].rsplit("/", 1)[-1] for name in space.keys) or "single"
    return f"{words[:NAME_CHARS].rstrip('_')}-{digest(key.about())[:8]}"


def open_study(opened: OpenStorage, name: str, key: SearchKey, space: Space, folder_of: FolderOf) -> optuna.Study:
    """The study of this search under `name`, begun or continued.

    Args:
        folder_of: the sweep folder of a study name.

    Raises:
        UserError: the study exists with another objective or other fixed settings.
    """
    with storage_errors(opened.shown), opened.mutex.held():
        study = load_study(opened, name)
        if study is None:
            return _create(opened, name, key)
        return _continue(opened, study, key, space, folder_of)


def _continue(
    opened: OpenStorage, study: optuna.Study, key: SearchKey, space: Space, folder_of: FolderOf
) -> optuna.Study:
    while True:
        about = study.user_attrs.get(ABOUT)
        if about is None:
            if study.trials:
                raise UserError(
                    f"sweep.study_name={study.study_name}: this study was made by another tool; give another name"
                )
            _describe(study, key)  # killed between its creation and this line
            return study
        _refuse_other_objective(study.study_name, about, key)
        _refuse_other_settings(study.study_name, about, key)
        if about["space"] == key.about()["space"]:
            return study
        following = study.user_attrs.get(SUCCESSOR)
        heir = load_study(opened, following) if following else None
        if heir is None:
            return _succeed(opened, study, key, space, folder_of)
        study = heir


def _refuse_other_objective(name: str, about: Mapping[str, Any], key: SearchKey) -> None:
    before = Objectives(tuple(about["metrics"]), tuple(about["directions"]))
    if before != key.objectives:
        raise UserError(
            f"sweep.study_name={name}: this study is to {before.describe()}, and the command asks to "
            f"{key.objectives.describe()}; give another sweep.study_name"
        )


def _refuse_other_settings(name: str, about: Mapping[str, Any], key: SearchKey) -> None:
    searched = {k.lstrip("+~").split("@")[0] for p in [*about["space"], *key.space] for k in p["keys"]}
    old, new = _leaves(about["base"]), _leaves(key.about()["base"])
    for path in sorted(old.keys() | new.keys()):
        covered = any(path == k or path.startswith(f"{k.replace('/', '.')}.") for k in searched)
        if not covered and old.get(path) != new.get(path):
            raise UserError(
                f"sweep.study_name={name}: this study was made with {path}={old.get(path)}, and the command "
                f"says {new.get(path)}; give another sweep.study_name, or sweep.fresh=true"
            )


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, dict) and node:
        return {
            k: v
            for name, child in node.items()
            for k, v in _leaves(child, f"{prefix}.{name}" if prefix else name).items()
        }
    return {prefix: node}


def _create(opened: OpenStorage, name: str, key: SearchKey) -> optuna.Study:
    study = optuna.create_study(
        study_name=name,
        storage=opened.storage,
        directions=[optuna.study.StudyDirection[d.upper()] for d in key.objectives.directions],
        sampler=optuna.samplers.RandomSampler(0),
    )
    _describe(study, key)
    return study


def _describe(study: optuna.Study, key: SearchKey) -> None:
    if len(key.objectives.metrics) == len(key.objectives.directions):
        study._storage.set_study_system_attr(study._study_id, "study:metric_names", list(key.objectives.metrics))
    study.set_user_attr(ABOUT, key.about())


def _succeed(
    opened: OpenStorage, study: optuna.Study, key: SearchKey, space: Space, folder_of: FolderOf
) -> optuna.Study:
    """Open the successor of `study`: its finished trials come along under their numbers, with their folders."""
    root = study.study_name
    heir = _create(opened, _heir_name(opened, root), key)
    heir.set_user_attr(PREDECESSOR, root)
    old_folder, new_folder = folder_of(root), folder_of(heir.study_name)
    taken = 0
    for trial in study.get_trials(deepcopy=True):
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            taken += 1
            link_folder(old_folder / str(trial.number), new_folder / str(trial.number))
        opened.storage.create_new_trial(heir._study_id, _fitted(trial, study, space))
    study.set_user_attr(SUCCESSOR, heir.study_name)  # last: until here the next start does it all again
    log.info(
        "the search space has changed: study %s continues as %s, with its %d finished trials and their folders",
        root,
        heir.study_name,
        taken,
    )
    return heir


def _heir_name(opened: OpenStorage, root: str) -> str:
    """`NAME.2`, `NAME.3`, ...; one that was half made when its maker died is removed."""
    stem, _, suffix = root.rpartition(".")
    stem, number = (stem, int(suffix)) if stem and suffix.isdigit() else (root, 1)
    while True:
        number += 1
        other = load_study(opened, f"{stem}.{number}")
        if other is None:
            return f"{stem}.{number}"
        if other.user_attrs.get(PREDECESSOR) == root:
            optuna.delete_study(study_name=other.study_name, storage=opened.storage)
            return f"{stem}.{number}"


def _fitted(trial: FrozenTrial, study: optuna.Study, space: Space) -> FrozenTrial:
    """The trial as the new space sees it; parameters that it does not hold live on in its overrides alone."""
    by_name = {p.name: p.distribution for p in space.params}
    base = _leaves(study.user_attrs[ABOUT]["base"])
    known = {**{name: base[name] for name in by_name if name in base}, **trial.params}
    fitting = {name: known[name] for name, d in by_name.items() if name in known and holds(d, known[name])}
    finished = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    user_attrs = {**trial.user_attrs, ledger.ADOPTED: f"{study.study_name} {trial.number}"}
    if not finished:  # its cell runs again under a new number
        user_attrs = {k: v for k, v in user_attrs.items() if k not in (ledger.IDENTITY, ledger.OVERRIDES)}
    if not set(trial.params) <= set(fitting):
        user_attrs[ledger.OUTSIDE] = True
    trial.state = trial.state if trial.state.is_finished() else TrialState.FAIL
    trial.params, trial._distributions = fitting, {name: by_name[name] for name in fitting}
    trial._user_attrs = user_attrs
    trial._system_attrs = {}
    return trial


def holds(distribution: optuna.distributions.BaseDistribution, value: Any) -> bool:
    """Whether a value lies in a distribution."""
    try:
        if isinstance(distribution, CategoricalDistribution):
            return any(type(c) is type(value) and c == value for c in distribution.choices)
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


def link_folder(source: Path, target: Path) -> None:
    """The same files under another name: hard links where the file system has them, else copies."""
    if not source.is_dir() or target.exists():
        return
    scratch = target.with_name(f".taking-{target.name}")
    shutil.rmtree(scratch, ignore_errors=True)

    def link(old: str, new: str) -> str:
        try:
            os.link(old, new)
        except OSError:
            shutil.copy2(old, new)
        return new

    shutil.copytree(source, scratch, copy_function=link, symlinks=True)
    os.replace(scratch, target)


def storage_of(folder: Path) -> str | None:
    """The local storage that a sweep's folder names as its study's, where that is not its own `study.db`."""
    try:
        storage = str(json.loads((folder / MARKER_FILE).read_text(encoding="utf-8"))["storage"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return storage if storage.startswith(("sqlite:///", "journal:///")) else None


def claim_folder(folder: Path, study: optuna.Study, shown: str) -> None:
    """Mark the sweep's folder as this study's.

    Raises:
        UserError: it holds another study's trials, which would be overwritten.
    """
    marker = folder / MARKER_FILE
    if marker.is_file():
        try:
            owner = json.loads(marker.read_text(encoding="utf-8"))["study_name"]
        except (ValueError, KeyError, TypeError):
            owner = study.study_name
        if owner not in (study.study_name, study.user_attrs.get(PREDECESSOR)):
            raise UserError(
                f"hydra.sweep.dir={folder} holds the trials of study {owner}; give another folder, or "
                f"sweep.study_name={owner} to go on with it"
            )
    elif folder.is_dir() and not study.trials and any(p.name.isdigit() for p in folder.iterdir() if p.is_dir()):
        raise UserError(
            f"hydra.sweep.dir={folder} holds runs of a sweep without its study; nothing is overwritten: "
            "give another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"study_name": study.study_name, "storage": shown}, indent=1)  # no password
    scratch = marker.with_suffix(".tmp")
    scratch.write_text(text + "\n", encoding="utf-8")
    os.replace(scratch, marker)
