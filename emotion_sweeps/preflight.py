"""Checks before anything is written: the run's config, or every cell of a sweep that Hydra's own sweepers would launch.

The study sweeper checks its own cells, because only it knows them. Sweeps by other sweepers are checked here: all
cells of a finite grid up to `MAX_CELLS`, beyond that each value of each key once.
"""

from __future__ import annotations

import itertools
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from emotion_sweeps.config.compose import to_conf
from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.paths import conf_dir
from emotion_sweeps.tracking.listeners import LISTENERS, check_trackers
from emotion_sweeps.trial.finished import finished_result

MAX_CELLS = 256


def wants_info(args: Namespace) -> bool:
    """Whether the command only shows something (help, config, completion) and runs nothing."""
    return bool(
        args.help or args.hydra_help or args.cfg or args.info or args.shell_completion or args.experimental_rerun
    )


def check_command(args: Namespace) -> None:
    """Compose what `args` (of Hydra's parser) would run and check it; raises the first error."""
    if GlobalHydra.instance().is_initialized():
        return
    name = args.config_name or "train"
    primary, extra = _search_path(args, name)
    with hydra.initialize_config_dir(primary):
        parsed = OverridesParser.create().parse_overrides(args.overrides)
        fixed = extra + [str(o.input_line) for o in parsed if not o.is_sweep_override()]
        cfg = hydra.compose(name, fixed, return_hydra_config=True)
        if not (args.multirun or str(OmegaConf.select(cfg, "hydra.mode")).endswith("MULTIRUN")):
            conf = _check(hydra.compose(name, fixed))
            finished_result(conf, Path(str(cfg.hydra.run.dir)))
            return
        if str(cfg.hydra.sweeper._target_).startswith("emotion_sweeps."):
            return
        for cell in _cells([*_params(cfg), *(o for o in parsed if o.is_sweep_override())]):
            _check(hydra.compose(name, fixed + cell))


def _check(cfg: DictConfig) -> TrainConf:
    """The config's rules, and the listeners' packages and keys."""
    conf = to_conf(cfg)
    listeners = [name for name in LISTENERS if getattr(conf.tracking, name)]
    check_trackers(listeners, wandb_mode=conf.tracking.wandb_mode)
    return conf


def _search_path(args: Namespace, name: str) -> tuple[str, list[str]]:
    """The folder that holds the primary config, and the override that adds the other one.

    `hydra.searchpath` cannot bring in a primary config, and --config-dir may hold one (best_config.yaml).
    """
    first = Path(args.config_path).resolve() if args.config_path else conf_dir()
    if not args.config_dir:
        return str(first), []
    second = Path(args.config_dir).resolve()
    if (second / f"{name.removesuffix('.yaml')}.yaml").is_file():
        first, second = second, first
    return str(first), [f"hydra.searchpath=[file://{second}]"]


def _params(cfg: DictConfig) -> list[Override]:
    params = OmegaConf.select(cfg, "hydra.sweeper.params") or {}
    return OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])


def _values(override: Override) -> list[str]:
    """The values a key takes; the two ends stand for an interval."""
    key, value = override.get_key_element(), override.value()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    return [f"{key}={item}" for item in override.sweep_string_iterator()]


def _cells(overrides: Iterable[Override]) -> Iterator[list[str]]:
    by_key = {o.get_key_element(): _values(o) for o in overrides}
    total = 1
    for values in by_key.values():
        total *= len(values)
    if total <= MAX_CELLS:
        yield from (list(cell) for cell in itertools.product(*by_key.values()))
        return
    first = {key: values[0] for key, values in by_key.items()}
    for key, values in by_key.items():
        for value in values:
            yield list({**first, key: value}.values())


def parse_command() -> Namespace:
    """The command line by Hydra's own parser."""
    from hydra._internal.utils import get_args_parser

    return get_args_parser().parse_intermixed_args(sys.argv[1:])
