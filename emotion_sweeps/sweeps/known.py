"""What is known before the start: configurations to run first (`sweep.enqueue`), and trials of another study.

`sweep.enqueue` is a list of `{key: value}`, or a YAML file with one: a path, or a name in `conf/enqueue/`. What a row
leaves out keeps the value of the command's own config. A row that equals a cell of the space is that cell, run first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from emotion_sweeps.errors import UserError
from emotion_sweeps.paths import conf_dir
from emotion_sweeps.sweeps.ledger import Cell
from emotion_sweeps.sweeps.space import Space, override_text, plain_key
from emotion_sweeps.sweeps.storage import OpenStorage, load_study, open_storage
from emotion_sweeps.sweeps.studies import holds

Identify = Callable[[Sequence[str]], str]


def read_known(enqueue: Any) -> list[dict[str, Any]]:
    """The rows of `sweep.enqueue`.

    Raises:
        UserError: the file is missing or is no list of mappings.
    """
    if enqueue is None:
        return []
    rows = (
        _load(enqueue) if isinstance(enqueue, str) else OmegaConf.to_container(OmegaConf.create(enqueue), resolve=True)
    )
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row for row in rows):
        raise UserError("sweep.enqueue must be a list of {key: value}, or a YAML file with one")
    return [{str(k): v for k, v in row.items()} for row in rows]


def _load(name: str) -> Any:
    places = [Path(name).expanduser(), conf_dir() / "enqueue" / name, conf_dir() / "enqueue" / f"{name}.yaml"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        shipped = ", ".join(sorted(p.stem for p in (conf_dir() / "enqueue").glob("*.yaml"))) or "none"
        raise UserError(f"sweep.enqueue: file not found: {name}; give a YAML file, or a shipped list ({shipped})")
    try:
        return yaml.safe_load(found.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"sweep.enqueue: {found} is no YAML ({' '.join(str(error).split())[:200]})") from None


def known_cells(
    rows: Sequence[Mapping[str, Any]], space: Space, identify: Identify, cells: Mapping[str, Cell]
) -> list[Cell]:
    """The rows as cells, each once.

    Args:
        cells: of a finite space, by identity.
    """
    found: dict[str, Cell] = {}
    for number, row in enumerate(rows, start=1):
        fixed = [o for o in space.fixed if plain_key(o.split("=", 1)[0]) not in row]
        overrides = tuple([*fixed, *(f"{key}={override_text(value)}" for key, value in row.items())])
        try:
            identity = identify(overrides)
        except UserError as error:
            raise UserError(f"sweep.enqueue, row {number}: {error}") from None
        found.setdefault(identity, cells.get(identity) or Cell(_params(row, space), overrides, identity))
    return list(found.values())


def _params(row: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """What of a row the sampler can learn from: the parameters of the space that it gives values within."""
    params: dict[str, Any] = {}
    for param in space.params:
        keys = [plain_key(key) for key in param.keys]
        if param.when is not None or not all(key in row for key in keys):
            continue
        if param.rows is None:
            values = [row[keys[0]]] if holds(param.distribution, row[keys[0]]) else []
        else:
            wanted = tuple(row[key] for key in keys)
            values = [choice for choice, cell in param.rows.items() if cell == wanted]
        if values:
            distribution = param.distribution
            params[param.name] = distribution.to_external_repr(distribution.to_internal_repr(values[0]))
    return params


def warm_trials(
    reference: str | None, opened: OpenStorage, sweep_dir: Path, space: Space, directions: Sequence[str]
) -> list[FrozenTrial]:
    """The finished trials of `sweep.warm_start_from` as far as they lie in the space, for a sampler's eyes alone.

    Raises:
        UserError: the study cannot be found, or optimises in another direction.
    """
    if reference is None:
        return []
    study = _find(reference, opened, sweep_dir)
    theirs = [d.name.lower() for d in study.directions]
    if theirs != list(directions):
        raise UserError(
            f"sweep.warm_start_from={study.study_name}: that study is to {', '.join(theirs)} and this one to "
            f"{', '.join(directions)}; learn from a study of the same objective"
        )
    seen = []
    for index, trial in enumerate(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))):
        fitted = _fit(trial, space)
        if fitted is not None:
            fitted.number = fitted._trial_id = -2 - index
            seen.append(fitted)
    if not seen:
        raise UserError(
            f"sweep.warm_start_from={study.study_name}: none of its finished trials lies in this search space"
        )
    return seen


def _find(reference: str, opened: OpenStorage, sweep_dir: Path) -> optuna.Study:
    url, _, name = reference.rpartition("#")
    if url:
        found = load_study(open_storage(url, sweep_dir, name), name)
    else:
        found = load_study(opened, name)
        beside = sweep_dir.parent / name
        if found is None and (beside / "study.db").is_file():
            found = load_study(open_storage(None, beside, name), name)
    if found is None:
        raise UserError(
            f"sweep.warm_start_from={reference}: no such study; give a name beside {sweep_dir.name}, or URL#NAME"
        )
    return found


def _fit(trial: FrozenTrial, space: Space) -> FrozenTrial | None:
    fitting = {p.name: p.distribution for p in space.params if p.name in trial.params}
    fitting = {name: d for name, d in fitting.items() if holds(d, trial.params[name])}
    if not fitting:
        return None
    fitted = copy.deepcopy(trial)
    fitted.params = {name: trial.params[name] for name in fitting}
    fitted._distributions = fitting
    fitted._user_attrs, fitted._system_attrs = {}, {}
    return fitted
