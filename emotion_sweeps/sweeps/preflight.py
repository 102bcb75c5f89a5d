"""Checks the trials of a study before the first of them trains: every cell composes and keeps the schema's rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields

from omegaconf import DictConfig

from emotion_sweeps.config.compose import to_conf
from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.errors import UserError

Compose = Callable[[Sequence[str]], DictConfig]
_SCHEMA_KEYS = frozenset(field.name for field in fields(TrainConf))


def check_cells(cells: Iterable[Sequence[str]], compose: Compose) -> None:
    """Compose and check each list of overrides.

    Raises:
        UserError: for the first cell that breaks a rule; the cell is named unless it is the only one.
    """
    for overrides in cells:
        try:
            check_config(compose(overrides))
        except UserError as error:
            named = " ".join(overrides)
            hint = "; write int(interval(low,high)) to search whole numbers" if "whole number" in str(error) else ""
            raise UserError(f"{error}{hint} (in the trial {named})" if named else str(error)) from None


def check_config(cfg: DictConfig) -> None:
    """Check a composed config by the schema; an app with a config of its own is only composed."""
    if set(cfg) >= _SCHEMA_KEYS:
        to_conf(cfg)
