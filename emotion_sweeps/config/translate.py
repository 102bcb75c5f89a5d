"""Hydra's and OmegaConf's errors in the user's terms: one line with the key, the rule, the value and a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.errors import UserError, did_you_mean

FORMS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "List": "a list"}


def known_keys(node: Any = TrainConf, prefix: str = "") -> Iterator[str]:
    """Every key of the schema, dotted: `lora`, `lora.r`, ..."""
    hints = get_type_hints(node)
    for item in fields(node):
        yield f"{prefix}{item.name}"
        if is_dataclass(hints[item.name]):
            yield from known_keys(hints[item.name], f"{prefix}{item.name}.")


def as_user_error(error: Exception) -> UserError | None:
    """The one-line form of a composition error; None when `error` is not of Hydra's or OmegaConf's making."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return UserError(f"{error.override}: not a valid override ({_first_line(error.message)}); write key=value")
    if isinstance(error, ValueError) and "Config group override must be" in str(error):
        return UserError("a config group cannot be null; --help lists its options")
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _composition(error)
    return None


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("Error when parsing", "See https", "full_key"))]
    return (useful or lines or [""])[0]


def _missing_option(error: MissingConfigException) -> UserError:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return UserError(f"config {error.missing_cfg_file} not found; {_first_line(str(error))}")
    options = sorted(o for o in (error.options or []) if o != "defaults")
    known = f"; there are {', '.join(options)}" if options else ""
    return UserError(f"{group}={option}: no such option{did_you_mean(option, options)}{known}")


def _composition(error: Exception) -> UserError:
    text = str(error)
    cause = error.__cause__
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' not in", text)
    if unknown:
        key = str(getattr(error, "full_key", "") or unknown.group(1))
        return UserError(f"{key}: no such key{did_you_mean(key, known_keys())}; --help shows the keys there are")
    if text.startswith("Ambiguous value for argument"):
        return UserError(f"{_first_line(text)}: several values; add -m to sweep over them, or give a list as key=[a,b]")
    if "hydra.mode changed" in text:
        return UserError("search=... is a sweep and needs -m: python -m emotion_sweeps.train -m search=...")
    group = re.search(r"No match in the defaults list.*?'?([\w/]+)'?$", text, re.S)
    if group:
        return UserError(f"{_first_line(text)}; --help shows the groups there are")
    return _wrong_type(text, cause if isinstance(cause, OmegaConfBaseException) else error)


def _wrong_type(text: str, cause: Exception) -> UserError:
    key = str(getattr(cause, "full_key", "") or "")
    merged = re.search(r"Error merging override (\S+?)=(.*)", text)
    if merged:
        key = merged.group(1)
    form = re.search(r"Value '(.*?)' .*could not be converted to (\w+)", str(cause), re.S)
    if form:
        return UserError(f"{key} must be {FORMS.get(form.group(2), form.group(2))}, got {form.group(1)}")
    prefix = f"{key}: " if key else ""
    return UserError(f"{prefix}{_first_line(str(cause) or text)}")
