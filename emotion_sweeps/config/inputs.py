"""What it is learned from: texts and labels, and extra copies of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import II, MISSING

from emotion_sweeps.config import rules
from emotion_sweeps.errors import UserError


@dataclass
class DataConf:
    """Texts and labels: where they are, how they are read, how they are split."""

    name: str = MISSING  # short name, used on the leaderboard
    source: str = MISSING  # demo, files, hub
    train: str | None = None  # files: path; hub: split name
    validation: str | None = None  # left out: cut from train by text
    test: str | None = None  # left out: cut from train when test_fraction > 0
    format: str = "auto"  # files: tsv, csv, jsonl, parquet, auto
    delimiter: str | None = None  # files: left out, it is found out
    header: bool | None = None  # files: left out, it is found out
    text_column: Any = None  # name, or position from 0; left out, it is guessed from the usual names
    label_column: Any = None
    label_columns: list[str] | None = None  # 0/1 columns, one a label
    id_column: Any = None
    label_separator: str | None = None  # between several labels in one field
    labels: Any = None  # label names in order: a list, or a file with one name a line
    path: str | None = None  # hub: dataset id or local folder
    config_name: str | None = None  # hub
    revision: str | None = None  # hub: a revision that holds data files, not a loading script
    validation_fraction: float = 0.1
    test_fraction: float = 0.0
    split_seed: int = 0
    max_samples: int | None = None  # training texts, drawn by split_seed
    max_eval_samples: int | None = None  # validation and test texts each
    max_length: int = II("task.max_length")  # tokens a row, prompt and answer included; a longer text is cut
    drop_leaks: bool = False  # drop training texts that stand in validation or test too

    def __post_init__(self) -> None:
        rules.one_of("data.source", self.source, ("demo", "files", "hub"))
        rules.one_of("data.format", self.format, ("auto", "tsv", "csv", "jsonl", "parquet"))
        rules.fraction("data.validation_fraction", self.validation_fraction)
        rules.fraction("data.test_fraction", self.test_fraction)
        if self.validation_fraction + self.test_fraction >= 1:
            raise UserError("data.validation_fraction + data.test_fraction must be < 1; nothing is left to train on")
        rules.at_least("data.split_seed", self.split_seed, 0)
        rules.at_least("data.max_samples", self.max_samples, 1)
        rules.at_least("data.max_eval_samples", self.max_eval_samples, 1)
        rules.at_least("data.max_length", self.max_length, 4)
        for key in ("text_column", "label_column", "id_column"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
                raise UserError(f"data.{key} must be a column name or a position from 0, got {value}")
        names = self.labels
        if not (names is None or isinstance(names, str) or (isinstance(names, list) and names)):
            raise UserError(
                f"data.labels must be a list of names or the path of a file with one name a line, got {names}"
            )


@dataclass
class AugmentConf:
    """Extra training texts; only `none` makes no copies."""

    name: str = "none"

    def __post_init__(self) -> None:
        rules.one_of("augment.name", self.name, ("none",))
