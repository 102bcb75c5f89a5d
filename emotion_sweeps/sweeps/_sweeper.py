"""The study sweeper itself: from a command to a study, its workers, and a summary.

Order matters: everything is read, composed and checked before the storage is opened, and the storage has answered
before a folder is made. What workers need is put into one `WorkerSpec`, which travels to other processes as it is.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import optuna
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from emotion_sweeps.config.schema import SweepConf
from emotion_sweeps.errors import UserError
from emotion_sweeps.notices import notice_once
from emotion_sweeps.sweeps import ledger, studies
from emotion_sweeps.sweeps.composer import Composer
from emotion_sweeps.sweeps.group_spaces import add_group_spaces
from emotion_sweeps.sweeps.identity import training_part
from emotion_sweeps.sweeps.jobs import JobPolicy
from emotion_sweeps.sweeps.known import known_cells, read_known, warm_trials
from emotion_sweeps.sweeps.ledger import Cell
from emotion_sweeps.sweeps.objectives import Objectives, read_objectives
from emotion_sweeps.sweeps.places import folders, fresh_name, max_evaluations, set_sweep_dir
from emotion_sweeps.sweeps.preflight import check_cells
from emotion_sweeps.sweeps.sampling import GRID, build_sampler, load_hook, sampler_settings
from emotion_sweeps.sweeps.search import Search
from emotion_sweeps.sweeps.space import Space, parse_space, plain_key
from emotion_sweeps.sweeps.storage import OpenStorage, load_study, locate, open_storage
from emotion_sweeps.sweeps.summary import summarise
from emotion_sweeps.sweeps.worker_spec import AfterTrial, PrunerSpec, WorkerSpec, build_source

log = logging.getLogger(__name__)
DEFAULT_N_TRIALS = 20
MAX_CHECKED = 256  # cells that are all composed and checked before the start; of more, each value once
_KNOBS = frozenset(field.name for field in fields(SweepConf))


@dataclass(frozen=True)
class Request:
    """A command, read and checked."""

    sweep: SweepConf
    objectives: Objectives
    space: Space
    sampler: dict[str, Any]
    key: studies.SearchKey
    cells: tuple[Cell, ...] | None  # of a space that is enumerated
    total: int | None
    known: tuple[Cell, ...]
    composer: Composer


def sweep(
    settings: Mapping[str, Any],
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    arguments: Sequence[str],
) -> None:
    """Run a study to its end: the sweeper's whole life.

    Raises:
        UserError: a mistake in the command, or failures that stop the sweep.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    request = read_request(settings, context, config, arguments)
    if request.sweep.plan:
        _print_plan(request, config)
        return
    opened, study, sweep_dir = _open(request, config)
    spec = _spec(request, settings, context, task, config, opened, study, sweep_dir)
    _announce(request, opened, study, spec, sweep_dir)
    _run(spec, opened, request)
    AfterTrial(
        spec, build_source(spec, opened, request.composer)
    ).clear()  # the last claim may have ended paused trials
    summarise(study, sweep_dir, request.objectives, float(settings.get("max_failure_rate", 1.0)), spec.search.retry)


def read_request(
    settings: Mapping[str, Any], context: HydraContext, config: DictConfig, arguments: Sequence[str]
) -> Request:
    """Read the command and check it and its trials, without opening or writing anything."""
    conf = _sweep_conf(settings, config)
    objectives = read_objectives(config, settings.get("direction"))
    composer = Composer(context, config)
    space = _space(settings, composer, arguments, config)
    typed = OmegaConf.to_container(config.hydra.overrides.hydra)
    sampler = sampler_settings(_plain(settings["sampler"]), typed, conf.sampler_seed)  # type: ignore[arg-type]
    _check_pruner(conf, objectives)
    load_hook(settings.get("custom_search_space"), config)  # complains now rather than in a worker
    size = None if settings.get("custom_search_space") else space.size()
    grid = sampler.get("_target_") == GRID
    if size is None and grid:
        raise UserError("hydra/sweeper/sampler=grid needs a finite space; give choices or ranges, or another sampler")
    enumerated = size is not None and (conf.n_trials is None or conf.n_trials >= size or grid)
    total = conf.n_trials if not enumerated or grid else None
    if size is None and total is None:
        total = DEFAULT_N_TRIALS
        log.info("sweep.n_trials is not set and the space is not finite: %d trials", total)
    if not enumerated:
        build_sampler({**sampler, "_partial_": False}, 0)  # complains now rather than in a worker
    every = [Cell(dict(c), tuple(space.overrides(c))) for c in space.cells()] if enumerated else None
    cells = _checked(every, space, composer)
    by_identity = {c.identity: c for c in cells or () if c.identity is not None}
    known = known_cells(read_known(conf.enqueue), space, composer.identity, by_identity)
    check_cells([c.overrides for c in known], composer.compose)
    base = composer.compose(space.fixed)
    key = studies.search_key(space, training_part(base), objectives)
    return Request(conf, objectives, space, sampler, key, cells, total, tuple(known), composer)


def _sweep_conf(settings: Mapping[str, Any], config: DictConfig) -> SweepConf:
    """The `sweep` group, with what `hydra.sweeper` says under the official names."""
    given = {key: value for key, value in (config.get("sweep") or {}).items() if key in _KNOBS}
    conf: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SweepConf), given))
    assert isinstance(conf, SweepConf)
    aliases = {"n_trials": "n_trials", "n_jobs": "workers", "storage": "storage", "study_name": "study_name"}
    changes = {ours: settings[name] for name, ours in aliases.items() if settings.get(name) is not None}
    return replace(conf, **changes)


def _space(settings: Mapping[str, Any], composer: Composer, arguments: Sequence[str], config: DictConfig) -> Space:
    space = parse_space(arguments, _plain(settings.get("params")))
    if OmegaConf.select(config, "sweep.group_spaces"):
        typed = frozenset(plain_key(argument.split("=", 1)[0]) for argument in arguments)
        space = add_group_spaces(space, composer.compose, typed)
    # Not part of a job: how the study is run stands in multirun.yaml (and a password in no run folder).
    space = replace(space, fixed=tuple(o for o in space.fixed if not plain_key(o).startswith("sweep.")))
    if not space.params and not settings.get("custom_search_space"):
        notice_once("nothing is searched: this sweep has one trial; give a list (lora.r=16,32) or search=lora")
    return space


def _plain(node: Any) -> dict[str, Any]:
    if node is None:
        return {}
    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else dict(node)
    return dict(plain)


def _check_pruner(conf: SweepConf, objectives: Objectives) -> None:
    if conf.pruner == "none":
        return
    if len(objectives.metrics) > 1:
        raise UserError(
            f"sweep.pruner={conf.pruner} needs one objective, got {len(objectives.metrics)}: a pruner cannot "
            "tell which of them to judge by; take sweep.pruner=none"
        )
    if conf.pruner == "wilcoxon" and conf.replicates < 2:
        raise UserError(
            "sweep.pruner=wilcoxon compares seeds and needs sweep.replicates > 1 (4 or more to prune at all)"
        )


def _checked(cells: Sequence[Cell] | None, space: Space, composer: Composer) -> tuple[Cell, ...] | None:
    """Check the cells (of a large or endless space, each value once); small ones get their identity, repeats go."""
    if cells is None or len(cells) > MAX_CHECKED:
        probes = [space.overrides(probe) for probe in space.probes()]
        check_cells(probes or [list(space.fixed)], composer.compose)
        return None if cells is None else tuple(cells)
    check_cells([cell.overrides for cell in cells], composer.compose)
    unique: dict[str, Cell] = {}
    for cell in cells:
        identity = composer.identity(cell.overrides)
        unique.setdefault(identity, replace(cell, identity=identity))
    if len(unique) < len(cells):
        log.info(
            "%d of %d cells resolve to a config that another one has, and are run once",
            len(cells) - len(unique),
            len(cells),
        )
    return tuple(unique.values())


def _open(request: Request, config: DictConfig) -> tuple[OpenStorage, optuna.Study, Path]:
    """Find or make the study and its folder."""
    folder_of = folders(config)
    name = request.sweep.study_name or studies.default_name(request.space, request.key)
    if request.sweep.fresh:
        name = fresh_name(name, request.sweep.storage, folder_of)
    storage = request.sweep.storage or studies.storage_of(folder_of(name))
    opened = open_storage(storage, folder_of(name), name)
    study = studies.open_study(opened, name, request.key, request.space, folder_of)
    sweep_dir = folder_of(study.study_name)
    studies.claim_folder(sweep_dir, study, opened.shown)
    set_sweep_dir(config, sweep_dir)
    text = OmegaConf.to_yaml(config)
    if request.sweep.storage:
        text = text.replace(request.sweep.storage, opened.shown)  # no password in a file
    (sweep_dir / "multirun.yaml").write_text(text, encoding="utf-8")
    return opened, study, sweep_dir


def _spec(
    request: Request, settings: Mapping[str, Any], context: HydraContext, task: TaskFunction, config: DictConfig,
    opened: OpenStorage, study: optuna.Study, sweep_dir: Path,
) -> WorkerSpec:  # fmt: skip
    conf = request.sweep
    hook = settings.get("custom_search_space")
    warm = warm_trials(conf.warm_start_from, opened, sweep_dir, request.space, request.objectives.directions)
    if warm and request.cells is not None:
        notice_once(
            "sweep.warm_start_from guides a sampler, and every cell of this space is run anyway: it changes nothing"
        )
    search = Search(
        cells=request.cells,
        total=request.total,
        known=request.known,
        retry=ledger.failed(study.get_trials(deepcopy=False)),
        metrics=request.objectives.metrics,
        lease_s=conf.lease_s,
        max_identical_failures=conf.max_identical_failures,
        replicates=conf.replicates,
        run_id=uuid.uuid4().hex,
        max_deaths=conf.max_retries + 2,
    )
    pruner = PrunerSpec(
        conf.pruner, conf.reduction_factor, conf.min_resource, request.objectives.directions[0],
        conf.replicates if conf.replicates > 1 else max_evaluations(config),
    )  # fmt: skip
    if pruner.name == "hyperband" and pruner.max_resource is None:
        raise UserError(
            "sweep.pruner=hyperband needs to know how many evaluations a trial has; set training.epochs "
            "and training.evals_per_epoch without training.max_steps, or take sweep.pruner=halving"
        )
    policy = JobPolicy(request.objectives, conf.max_retries, conf.replicates)
    return WorkerSpec(
        context, config, task, opened.url, study.study_name, sweep_dir, search, request.space, request.sampler, pruner,
        policy, conf.keep, conf.keep_top_k, tuple(warm), hook,
    )  # fmt: skip


def _announce(request: Request, opened: OpenStorage, study: optuna.Study, spec: WorkerSpec, sweep_dir: Path) -> None:
    source = build_source(spec, opened, request.composer)
    trials = source.trials()
    finished = sum(t.state.is_finished() for t in ledger.counting(trials, spec.search.retry))
    size = f"{len(request.cells)} cells" if request.cells is not None else f"{request.total} trials"
    log.info("study %s: %s, %d finished, to %s", study.study_name, size, finished, request.objectives.describe())
    log.info("folder %s, storage %s (optuna-dashboard opens it)", sweep_dir, opened.shown)
    if spec.search.retry:
        log.info("%d trials that had failed are run again", len(spec.search.retry))


def _run(spec: WorkerSpec, opened: OpenStorage, request: Request) -> None:
    workers, config = request.sweep.workers, spec.config
    launcher = str(config.hydra.launcher._target_)
    if not launcher.endswith("basic_launcher.BasicLauncher"):
        from emotion_sweeps.sweeps.launched import run_launched

        run_launched(spec, opened, workers)
    elif workers > 1:
        from emotion_sweeps.sweeps.pool import run_pool

        run_pool(spec, workers)
    else:
        from emotion_sweeps.sweeps.worker_spec import run_worker

        run_worker(spec, opened, request.composer)


def _print_plan(request: Request, config: DictConfig) -> None:
    from emotion_sweeps.sweeps.plan import print_plan

    folder_of = folders(config)
    name = request.sweep.study_name or studies.default_name(request.space, request.key)
    url, path = locate(request.sweep.storage or studies.storage_of(folder_of(name)), folder_of(name))
    study = None
    if path is None or path.is_file():
        study = load_study(open_storage(url, folder_of(name), name), name)
    trials = study.get_trials(deepcopy=False) if study else []
    print_plan(
        study_name=name,
        cells=None if request.cells is None else [list(c.overrides) for c in request.cells],
        n_trials=request.total,
        done={str(t.user_attrs.get(ledger.IDENTITY)) for t in trials if t.state.is_finished()},
        fixed=list(request.space.fixed),
        compose=lambda overrides: request.composer.compose(overrides),
    )
