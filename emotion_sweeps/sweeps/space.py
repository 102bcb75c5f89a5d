"""The search space of a sweep: what is searched, how, and every cell of it where it is finite.

The syntax is that of Hydra and of the official Optuna sweeper, whose parser is used: `a=1,2`, `choice`, `range`,
`interval` and `tag(log, interval(...))`. Two forms are added: `tag(zip, choice(...))` pairs parameters by position,
and a group option may carry a `search_space` that holds only where that option was chosen (`group_spaces.py`).
A finite space is enumerated in the order of Hydra's basic sweeper: the last key runs fastest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from emotion_sweeps.errors import UserError

Value = str | int | float | bool | None
NEVER_SEARCHED = (
    "sweep",
    "tracking",
    "name",
)  # how a study is run and watched; no part of a trial's identity


@dataclass(frozen=True)
class Condition:
    """Holds where the parameter `name` was given one of `values`."""

    name: str
    values: frozenset[Value]


@dataclass(frozen=True)
class Param:
    """One searched parameter; a zip group is one parameter that sets several keys."""

    name: str  # in the study
    keys: tuple[str, ...]  # what it overrides
    distribution: BaseDistribution
    finite: bool
    rows: Mapping[Value, tuple[Value, ...]] | None = None  # zip group: the values of the keys, by choice
    when: Condition | None = None

    def values(self) -> list[Value]:
        """Every value of a finite parameter, in order."""
        return _values(self.distribution)

    def overrides(self, value: Value) -> list[str]:
        """The overrides that give `value` to the keys."""
        row = (value,) if self.rows is None else self.rows[value]
        return [f"{key}={override_text(item)}" for key, item in zip(self.keys, row, strict=True)]


@dataclass(frozen=True)
class Space:
    """What is searched and what is fixed."""

    params: tuple[Param, ...]
    fixed: tuple[str, ...]  # fixed overrides, in the order given

    @property
    def finite(self) -> bool:
        """Whether the cells can be counted."""
        return all(param.finite for param in self.params)

    @property
    def keys(self) -> list[str]:
        """Every searched key, without Hydra's prefixes."""
        return sorted({plain_key(key) for param in self.params for key in param.keys})

    def active(self, chosen: Mapping[str, Value]) -> list[Param]:
        """The parameters that are searched where `chosen` holds."""
        return [p for p in self.params if p.when is None or chosen.get(p.when.name, _ABSENT) in p.when.values]

    def overrides(self, chosen: Mapping[str, Value]) -> list[str]:
        """The overrides of one trial, fixed ones first."""
        searched = [o for p in self.active(chosen) if p.name in chosen for o in p.overrides(chosen[p.name])]
        return [*self.fixed, *searched]

    def cells(self) -> Iterator[dict[str, Value]]:
        """Every cell of a finite space, the last parameter fastest."""
        yield from self._cells(0, {})

    def _cells(self, index: int, chosen: dict[str, Value]) -> Iterator[dict[str, Value]]:
        if index == len(self.params):
            yield dict(chosen)
            return
        param = self.params[index]
        if param not in self.active(chosen):
            yield from self._cells(index + 1, chosen)
            return
        for value in param.values():
            yield from self._cells(index + 1, {**chosen, param.name: value})

    def size(self) -> int | None:
        """The number of cells, None where it is not finite."""
        if not self.finite:
            return None
        if all(param.when is None for param in self.params):
            return math.prod(len(param.values()) for param in self.params)
        return sum(1 for _ in self.cells())

    def probes(self) -> Iterator[dict[str, Value]]:
        """A few cells that hold each choice and both ends of each interval once, for a check before the start."""
        ends = {p.name: _ends(p.distribution) for p in self.params}
        first = {p.name: ends[p.name][0] for p in self.params}
        for param in self.params or ():
            for value in ends[param.name]:
                base = dict(first)
                if param.when is not None:
                    base[param.when.name] = sorted(param.when.values, key=str)[0]
                chosen = {**base, param.name: value}
                names = {p.name for p in self.active(chosen)}
                yield {name: item for name, item in chosen.items() if name in names}

    def signature(self) -> list[dict[str, Any]]:
        """The space as plain JSON: equal spaces, equal signatures."""
        return [
            {
                "name": p.name,
                "keys": list(p.keys),
                "distribution": distribution_to_json(p.distribution),
                "rows": None if p.rows is None else [[k, *v] for k, v in p.rows.items()],
                "when": None if p.when is None else [p.when.name, sorted(map(str, p.when.values))],
            }
            for p in self.params
        ]


_ABSENT = object()


def plain_key(key: str) -> str:
    """A key without Hydra's `+`, `++`, `~` and package suffix."""
    return key.lstrip("+~").split("@", 1)[0]


def parse_space(arguments: Sequence[str], params: Mapping[str, Any] | None = None) -> Space:
    """The space of `hydra.sweeper.params` and the command line; where both name a key the command line holds.

    Raises:
        UserError: a bound or choice that cannot be searched, a key named twice, a key that is never searched.
    """
    given = _parse([f"{key}={value}" for key, value in (params or {}).items()], "hydra.sweeper.params")
    typed = _parse(arguments, "the command line")
    merged = {plain_key(o.get_key_element()): o for o in given}
    merged.update({plain_key(o.get_key_element()): o for o in typed})
    searched = [o for o in merged.values() if o.is_sweep_override()]
    for override in searched:
        key = plain_key(override.get_key_element())
        if key.split(".", 1)[0] in NEVER_SEARCHED:
            raise UserError(f"{key} cannot be searched: it does not change what is learned; give it one value")
    fixed = [_fixed(o) for o in [*given, *typed] if merged[plain_key(o.get_key_element())] is o and o not in searched]
    return Space(tuple(_params(searched)), tuple(fixed))


def parse_params(params: Mapping[str, Any], where: str) -> list[Param]:
    """The parameters of one mapping of keys to search expressions (a group option's `search_space`)."""
    overrides = _parse([f"{key}={value}" for key, value in params.items()], where)
    fixed = [o.get_key_element() for o in overrides if not o.is_sweep_override()]
    if fixed:
        raise UserError(f"{where}: {fixed[0]} has one value and is not searched; set it in the option itself")
    return list(_params(overrides))


def _parse(arguments: Iterable[str], where: str) -> list[Override]:
    parsed: list[Override] = []
    for argument in arguments:
        try:
            parsed += OverridesParser.create().parse_overrides([argument])
        except HydraException as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise UserError(
                f"{where}: {argument} cannot be read ({lines[0]}); write key=value, or "
                "key=interval(low,high) or key=choice(a,b) to search it"
            ) from None
    kinds: dict[str, bool] = {}
    for override in parsed:
        key, sweeps = plain_key(override.get_key_element()), override.is_sweep_override()
        if kinds.get(key, sweeps) != sweeps:
            raise UserError(f"{key} is both fixed and searched in {where}; give it once")
        kinds[key] = sweeps
    return parsed


def _fixed(override: Override) -> str:
    if override.is_delete():
        return str(override.input_line)
    return f"{override.get_key_element()}={override.get_value_element_as_str()}"


def _params(overrides: Iterable[Override]) -> Iterator[Param]:
    zipped: dict[str, list[Override]] = {}
    for override in overrides:
        tag = _zip_tag(override)
        if tag:
            zipped.setdefault(tag, []).append(override)
    for override in overrides:
        tag = _zip_tag(override)
        if tag is None:
            yield _single(override)
        elif zipped[tag][0] is override:
            yield _zip_group(tag, zipped[tag])


def _zip_tag(override: Override) -> str | None:
    tags = getattr(override.value(), "tags", None) or set()
    return next((tag for tag in sorted(tags) if tag.startswith("zip")), None)


def _single(override: Override) -> Param:
    key = override.get_key_element()
    interval = isinstance(override.value(), IntervalSweep)
    distribution = _interval(key, override) if interval else _choices(key, override)
    return Param(plain_key(key), (key,), distribution, finite=not interval)


def _zip_group(tag: str, members: Sequence[Override]) -> Param:
    keys = tuple(o.get_key_element() for o in members)
    if any(isinstance(o.value(), IntervalSweep) for o in members):
        raise UserError(f"{plain_key(keys[0])}: tag({tag}, ...) pairs choices or ranges, not intervals")
    if len(members) < 2:
        raise UserError(
            f"{plain_key(keys[0])}: tag({tag}, ...) stands alone; tag the parameter that it is paired with too"
        )
    columns = [
        _values(_choices(k, o, keep_repeats=True)) if not o.is_choice_sweep() else _listed(o)
        for k, o in zip(keys, members, strict=True)
    ]
    if len({len(column) for column in columns}) > 1:
        sizes = ", ".join(f"{plain_key(k)} has {len(c)}" for k, c in zip(keys, columns, strict=True))
        raise UserError(f"tag({tag}, ...): paired parameters need equally many values; {sizes}")
    rows: dict[Value, tuple[Value, ...]] = {
        ",".join(map(override_text, row)): row for row in zip(*columns, strict=True)
    }
    name = ",".join(map(plain_key, keys))
    return Param(name, keys, CategoricalDistribution(list(rows)), finite=True, rows=rows)


def _listed(override: Override) -> list[Value]:
    distribution = create_optuna_distribution_from_override(override)
    assert isinstance(distribution, CategoricalDistribution)
    return list(distribution.choices)


def _choices(key: str, override: Override, *, keep_repeats: bool = False) -> BaseDistribution:
    try:
        distribution: BaseDistribution = create_optuna_distribution_from_override(override)
    except NotImplementedError:
        distribution = CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, TypeError, AssertionError, OverflowError) as error:
        raise UserError(f"{plain_key(key)}: {error}") from None
    if not isinstance(distribution, CategoricalDistribution) or keep_repeats:
        return distribution
    unique = list({(type(c), c): c for c in distribution.choices}.values())
    for choice in unique:
        if isinstance(choice, float) and not math.isfinite(choice):
            raise UserError(f"{plain_key(key)}: a searched value must be finite, got {choice}")
    return CategoricalDistribution(unique)


def _interval(key: str, override: Override) -> BaseDistribution:
    value = override.value()
    assert isinstance(value, IntervalSweep) and value.start is not None and value.end is not None
    name, low, high = plain_key(key), value.start, value.end
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{name}: the bounds of an interval must be finite, got interval({low},{high})")
    if low > high:
        raise UserError(f"{name}: the low bound must not be above the high one, got interval({low},{high})")
    if "log" in value.tags and low <= 0:
        raise UserError(
            f"{name}: a log interval must start above 0, got {low}; take the smallest value that makes sense"
        )
    try:
        distribution: BaseDistribution = create_optuna_distribution_from_override(override)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    return distribution


def _values(distribution: BaseDistribution) -> list[Value]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    assert isinstance(distribution, FloatDistribution) and distribution.step is not None
    low, step = Decimal(str(distribution.low)), Decimal(str(distribution.step))
    count = int((Decimal(str(distribution.high)) - low) / step)
    return [float(low + index * step) for index in range(count + 1)]


def _ends(distribution: BaseDistribution) -> list[Value]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    return list(itertools.chain([distribution.low], [distribution.high] * (distribution.high != distribution.low)))


def override_text(value: Any) -> str:
    """A value as Hydra reads it back."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ",".join(map(override_text, value)) + "]"
    return repr(value) if isinstance(value, float) else str(value)
