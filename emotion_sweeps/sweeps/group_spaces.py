"""Spaces that belong to a config option: `search_space` in `conf/model/*.yaml` or `conf/lora/*.yaml`.

    search_space:
      lora.learning_rate: tag(log, interval(1e-4, 3e-3))

They are used where the sweep asks for them (`sweep.group_spaces=true`, set by `search=lora`). Where the group itself is
searched (`model=a,b`) each option is searched in its own space; otherwise the chosen option's space is added. The
command line stands above an option's space, and that above `hydra.sweeper.params`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps.space import Condition, Param, Space, Value, parse_params, plain_key

Compose = Callable[[list[str]], DictConfig]


def add_group_spaces(space: Space, compose: Compose, typed: frozenset[str]) -> Space:
    """`space` with the options' own spaces.

    Args:
        compose: the config of a list of overrides.
        typed: plain keys named on the command line; no option's space replaces them.
    """
    groups = [p for p in space.params if len(p.keys) == 1 and "." not in p.name and p.finite]
    swept = {p.name for p in groups}
    base = compose(list(space.fixed))
    params = list(space.params)
    for group in [str(key) for key in base if str(key) not in swept]:
        own = _own(base, group, typed, f"{group}.search_space")
        params = [p for p in params if not _clash(p, own)] + own
    for param in groups:
        params = _add_swept(params, param, space, compose, typed)
    return Space(tuple(params), space.fixed)


def _add_swept(params: list[Param], group: Param, space: Space, compose: Compose, typed: frozenset[str]) -> list[Param]:
    spaces: dict[Value, list[Param]] = {}
    for option in group.values():
        cfg = compose([*space.fixed, *group.overrides(option)])
        spaces[option] = _own(cfg, group.name, typed, f"{group.name}={option}: search_space")
    general = [_where_not(p, group, [o for o in spaces if _clash(p, spaces[o])]) for p in params]
    kept = [p for p in general if p is not None]
    return kept + _merge_equal(group, spaces, kept)


def _own(cfg: DictConfig, group: str, typed: frozenset[str], where: str) -> list[Param]:
    node = OmegaConf.select(cfg, f"{group}.search_space") if OmegaConf.is_dict(cfg.get(group)) else None
    if not node:
        return []
    mapping = OmegaConf.to_container(node, resolve=True)
    if not isinstance(mapping, Mapping):
        raise UserError(f"{where} must map keys to search expressions, got {mapping}")
    found = parse_params({str(k): v for k, v in mapping.items()}, where)
    return [p for p in found if not typed.intersection(map(plain_key, p.keys))]


def _clash(param: Param, own: list[Param]) -> bool:
    keys = {plain_key(key) for key in param.keys}
    return any(keys.intersection(map(plain_key, other.keys)) for other in own)


def _where_not(param: Param, group: Param, options: list[Value]) -> Param | None:
    """`param`, searched only for the options of `group` that do not bring their own."""
    if not options:
        return param
    rest = frozenset(v for v in group.values() if v not in options)
    return replace(param, when=Condition(group.name, rest)) if rest else None


def _merge_equal(group: Param, spaces: Mapping[Value, list[Param]], general: Sequence[Param]) -> list[Param]:
    """One parameter for options with the same one; a name of its own for each that differs from another's."""
    by_shape: dict[Any, tuple[Param, list[Value]]] = {}
    for option, own in spaces.items():
        for param in own:
            shape = (param.keys, repr(param.distribution), repr(param.rows))
            by_shape.setdefault(shape, (param, []))[1].append(option)
    names = [param.name for param in general] + [param.name for param, _ in by_shape.values()]
    merged = []
    for param, options in by_shape.values():
        name = param.name if names.count(param.name) == 1 else f"{param.name}@{options[0]}"
        merged.append(replace(param, name=name, when=Condition(group.name, frozenset(options))))
    return merged
