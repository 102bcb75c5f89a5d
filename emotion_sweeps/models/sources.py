"""Where a base model's weights come from: a twin, an installed package, a local folder or the hub.

`resolve_source` answers without loading anything heavy. The answer keeps two names apart: `location` is what
`from_pretrained` is handed (it may be a path of this machine), `reference` is what may be written into files
(a hub id, `twin:<name>`, or the bare name of a user's own folder). A package's weights are trusted only after
their sha256 was checked, once a process for each state of the file; reading 90 MB costs about 0.1 s.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_sweeps.errors import UserError
from emotion_sweeps.notices import notice_once

TWIN_PREFIX = "twin:"
WEIGHTS_FILE = "model.safetensors"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
_verified: set[tuple[str, int, int, str]] = set()


@dataclass(frozen=True)
class ModelSource:
    """A base model: where it is loaded from, and the name that may be written into files."""

    location: str
    reference: str
    note: str | None = None
    revision: str | None = None
    stand_in: bool = False

    @property
    def is_local(self) -> bool:
        """Whether everything is on this machine's disk, so that the hub is never asked."""
        return Path(self.location).is_dir()


def resolve_source(
    *,
    path: str,
    revision: str | None = None,
    package: str | None = None,
    sha256: str | None = None,
    twin: str | None = None,
) -> ModelSource:
    """Find a base model by, in this order: twin name, installed package, local folder, hub id.

    Raises:
        UserError: the twin is unknown, the package's weights are not the expected ones, the folder does not
            hold a model in safetensors format, or `path` is neither a folder nor a hub id.
    """
    if twin is None and path.startswith(TWIN_PREFIX):
        twin = path.removeprefix(TWIN_PREFIX)
    if twin is not None:
        return _twin_source(twin)
    if package is not None:
        found = _package_source(package, path, sha256)
        if found is not None:
            return found
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _folder_source(folder)
    return _hub_source(path, revision)


def source_card(
    source: ModelSource,
    *,
    path: str,
    revision: str | None = None,
    package: str | None = None,
    sha256: str | None = None,
    twin: str | None = None,
) -> dict[str, Any]:
    """The source settings as they may be written beside an adapter: enough to rebuild the base, no path."""
    local = source.is_local and package is None and twin is None and not path.startswith(TWIN_PREFIX)
    return {
        "path": source.reference if local else path,
        "local_folder": local,
        "revision": revision,
        "package": package,
        "sha256": sha256,
        "twin": twin,
        "reference": source.reference,
    }


def _twin_source(name: str) -> ModelSource:
    from emotion_sweeps.models.twins import twin_folder

    folder = twin_folder(name)
    note = f"model={name}: a stand-in with random weights, built on this machine; its scores mean nothing"
    notice_once(note)
    return ModelSource(str(folder), f"{TWIN_PREFIX}{name}", note, stand_in=True)


def _package_source(package: str, path: str, sha256: str | None) -> ModelSource | None:
    """The package's `model/` folder, found without importing the package; None when it is not installed."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        notice_once(f"model.package={package} is not installed; {path} is loaded from the hub instead")
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(
            f"model.package={package}: no model/{WEIGHTS_FILE} inside the package; reinstall it, or "
            "set model.package=null"
        )
    if sha256 is None:
        notice_once(f"model.package={package}: model.sha256 is not set, so its weights are not verified")
    else:
        _verify_sha256(folder / WEIGHTS_FILE, sha256, package)
    return ModelSource(str(folder), path, f"weights from the installed package {package}")


def _verify_sha256(file: Path, expected: str, package: str) -> None:
    stat = file.stat()
    state = (str(file), stat.st_size, stat.st_mtime_ns, expected.lower())
    if state in _verified:
        return
    with file.open("rb") as stream:
        got = hashlib.file_digest(stream, "sha256").hexdigest()
    if got != expected.lower():
        raise UserError(
            f"model.sha256: {file.name} of the package {package} has sha256 {got}, expected {expected}; "
            "reinstall the package, or set model.package=null to load from the hub"
        )
    _verified.add(state)


def _folder_source(folder: Path) -> ModelSource:
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise UserError(
                f"model.path={folder} is an adapter, not a base model; give the base that it was trained on"
            )
        raise UserError(
            f"model.path={folder} holds no config.json; give a folder written by save_pretrained, or a hub id"
        )
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLE_SUFFIXES)
        found = f"only {pickled[0]}, and pickled weights are refused" if pickled else "no weights"
        raise UserError(
            f"model.path={folder} must hold safetensors weights, found {found}; write it with save_pretrained"
        )
    name = folder.resolve().name
    return ModelSource(str(folder.resolve()), name, f"weights from the local folder {name}")


def _hub_source(path: str, revision: str | None) -> ModelSource:
    if not _HUB_ID.fullmatch(path):
        raise UserError(
            f"model.path={path}: no such folder, and not a hub id; give a folder with config.json, or an id "
            "such as FacebookAI/roberta-base"
        )
    return ModelSource(path, path, None, revision)
