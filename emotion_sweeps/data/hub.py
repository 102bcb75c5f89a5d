"""Data sets of the Hugging Face hub, or a local folder of Parquet, CSV or JSONL files laid out like one, as tables.

`datasets.load_dataset` finds the files and the splits; label names come from ClassLabel features. Loading
scripts are gone since datasets 4 and are not run: such a data set needs a revision that holds data files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_sweeps.data.table import Table, list_names
from emotion_sweeps.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def read_hub(
    path: str, *, config_name: str | None, revision: str | None, splits: Mapping[str, str | None]
) -> dict[str, Table]:
    """The splits of a data set as tables under "data.train", "data.validation" and "data.test".

    Args:
        path: hub id ("dair-ai/emotion") or a local folder.
        splits: what the data set calls the train, validation and test split; None takes the usual names.
    Raises:
        UserError: not reachable, not found, needs a loading script, or lacks a split that was named.
    """
    data = _load(path, config_name, revision)
    chosen = {split: _find_split(list(data), split, splits.get(split), path) for split in SPLIT_NAMES}
    if chosen["train"] is None:
        if len(data) > 1:
            raise UserError(
                f"data.path: {path} has no split called train; its splits are {list_names(list(data))}; name one in"
                " data.train"
            )
        chosen = {"train": next(iter(data)), "validation": None, "test": None}
    source = Path(path).name
    return {
        f"data.{split}": _to_table(data[name], f"data.{split}", f"{source}[{name}]")
        for split, name in chosen.items()
        if name is not None
    }


def _find_split(names: list[str], split: str, wanted: str | None, path: str) -> str | None:
    if wanted is not None:
        if wanted not in names:
            raise UserError(
                f"data.{split}: {path} has no split {wanted!r}; its splits are {list_names(names)}"
                f"{did_you_mean(wanted, names)}"
            )
        return wanted
    return next((name for name in SPLIT_NAMES[split] if name in names), None)


def _load(path: str, config_name: str | None, revision: str | None) -> Mapping[str, Dataset]:
    """`load_dataset` with every expected failure told in one line."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    folder = Path(path).expanduser()
    local = folder.is_dir()
    if not local and (path.startswith(("/", "~", ".")) or folder.is_file()):
        raise UserError(
            f"data.path: {path} is no folder; give a folder of data files, or a hub id such as dair-ai/emotion"
        )
    try:
        with _quiet_retries():
            data = datasets.load_dataset(str(folder) if local else path, config_name, revision=revision)
    except DatasetNotFoundError as error:
        raise UserError(f"data.path: {path} was not found on the hub ({_first_line(error)}); check the id") from None
    except ConnectionError:
        raise UserError(
            f"data.path: the hub cannot be reached for {path} (and no folder of that name is here); connect, or give a"
            " local folder that holds its Parquet files, or use data=demo"
        ) from None
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise UserError(
            f"data.path: {path} needs a loading script, which datasets {datasets.__version__} does not run; give"
            " data.revision=refs/convert/parquet, or another data set that holds data files"
        ) from None
    except (DatasetsError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise UserError(
            f"data.path: {path} cannot be read: {_first_line(cause)}; check data.config_name and data.revision"
        ) from None
    return {str(name): split for name, split in data.items()}


@contextmanager
def _quiet_retries() -> Iterator[None]:
    """Mute the client's line for every retry and the progress bars: what counts is said in one line after them."""
    import datasets

    client = logging.getLogger("huggingface_hub")
    level, bars = client.level, datasets.is_progress_bar_enabled()
    client.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        client.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def _to_table(data: Dataset, key: str, source: str) -> Table:
    columns: dict[str, list[object]] = data.to_dict()
    named = {name: names for name, feature in data.features.items() if (names := _class_names(feature))}
    return Table(key, source, columns, list(range(1, data.num_rows + 1)), class_names=named)


def _class_names(feature: object) -> list[str]:
    """The names of a ClassLabel feature, or of a list of ClassLabels."""
    from datasets import ClassLabel, LargeList, List

    if isinstance(feature, (List, LargeList)):
        return _class_names(feature.feature)
    return list(feature.names or []) if isinstance(feature, ClassLabel) else []


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
