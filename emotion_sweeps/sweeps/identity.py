"""What makes two trials the same trial: the resolved config that matters for training, and the data's own digest.

    identity = sha256(JSON of the resolved config without how-only keys, with files replaced by their digests)

How a study is run, watched and kept does not count, nor on which device or in which micro-batches it is computed;
precision and 4-bit weights do. Two spellings of one config (a default, a moved data file) have one identity.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from emotion_sweeps import __version__

HOW_ONLY = ("sweep", "tracking", "name", "hydra")
HOW_ONLY_WITHIN = {
    "training": ("log_every", "resume", "predict_test"),
    "model": ("search_space",),
    "lora": ("search_space",),
}
OF_HARDWARE = ("precision", "load_in_4bit")
DATA_FILES = ("train", "validation", "test", "labels")


def training_part(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config without what does not change the outcome, data files as digests."""
    kept = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in HOW_ONLY])
    plain: Any = OmegaConf.to_container(kept, resolve=True, throw_on_missing=False, enum_to_str=True)
    for group, keys in HOW_ONLY_WITHIN.items():
        if isinstance(plain.get(group), dict):
            plain[group] = {k: v for k, v in plain[group].items() if k not in keys}
    if isinstance(plain.get("hardware"), dict):
        plain["hardware"] = {k: v for k, v in plain["hardware"].items() if k in OF_HARDWARE}
    if isinstance(plain.get("data"), dict):
        plain["data"] = _data_part(plain["data"])
    assert isinstance(plain, dict)
    return plain


def identity(cfg: DictConfig) -> str:
    """The identity of a composed trial config, 64 hex digits."""
    return digest(training_part(cfg))


def digest(plain: Any) -> str:
    """sha256 of the JSON form; the order of keys does not count, nor whether a whole number is written 2 or 2.0."""
    text = json.dumps(_whole_numbers(plain), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _data_part(data: dict[str, Any]) -> dict[str, Any]:
    if data.get("source") == "demo":
        return {**data, "digest": [__version__, _demo_digest()]}
    if data.get("source") == "files":
        return {k: _content(v) if k in DATA_FILES else v for k, v in data.items()}
    return data


def _content(value: Any) -> Any:
    """A file's digest in place of its path; anything else as it is."""
    if not isinstance(value, str):
        return value
    path = Path(value).expanduser()
    if not path.is_file():
        return value
    stat = path.stat()
    return file_digest(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def file_digest(path: str, size: int, mtime_ns: int) -> str:
    """sha256 of a file's bytes; read once a process while its size and time stay."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def _demo_digest() -> str:
    spec = find_spec("emotion_sweeps.data")
    folders = [Path(p) / "demo" for p in (spec.submodule_search_locations or [])] if spec else []
    files = sorted(f for folder in folders if folder.is_dir() for f in folder.glob("*.jsonl"))
    stats = [(f, f.stat()) for f in files]
    return digest([[f.name, file_digest(str(f), s.st_size, s.st_mtime_ns)] for f, s in stats])
