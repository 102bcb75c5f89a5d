"""A corpus: texts with multi-hot labels in up to three splits, its fingerprint, and the report on how it was read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EXCERPT_CHARS = 60


@dataclass(frozen=True)
class Split:
    """Rows of one split; `labels` is `(num_examples, num_labels)` uint8 multi-hot.

    `labelled` is False for a test part that came without labels (all zero then): it can be predicted, not
    scored.
    """

    ids: list[str]
    texts: list[str]
    labels: NDArray[np.uint8]
    columns: dict[str, list[str]] = field(default_factory=dict)
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.texts)

    def keep(self, rows: Sequence[int]) -> Split:
        """The same split with only these rows, in this order."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        ids, texts = [self.ids[row] for row in rows], [self.texts[row] for row in rows]
        return Split(ids, texts, self.labels[list(rows)], columns, self.labelled)


@dataclass(frozen=True)
class LeakCount:
    """How many rows of one split have a text that stands in another one too, with some of the texts."""

    source: str
    target: str
    rows: int
    examples: list[str]


@dataclass(frozen=True)
class CorpusReport:
    """What a corpus holds and what was assumed, left out and found while reading it."""

    name: str
    label_names: list[str]
    rows: dict[str, int]  # split -> rows
    label_counts: dict[str, dict[str, int]]  # split -> label -> rows
    without_label: dict[str, int]  # split -> rows that have none of the labels
    duplicates: dict[str, int]  # split -> rows whose text stood in an earlier row of it
    leaks: list[LeakCount]
    dropped: dict[str, dict[str, int]]  # source -> reason -> rows
    assumed: list[str]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The same, JSON-able."""
        plain = {key: value for key, value in vars(self).items() if key != "leaks"}
        return {**plain, "leaks": [dict(vars(leak)) for leak in self.leaks]}

    def lines(self) -> list[str]:
        """The same for people, one fact a line."""
        sizes = ", ".join(f"{split} {rows:,}" for split, rows in self.rows.items())
        found = [f"{self.name}: {sizes} rows, {len(self.label_names)} labels"]
        found += [f"assumed: {text}" for text in self.assumed]
        found += [f"left out of {source}: {n} rows with {why}" for source, each in self.dropped.items()
                  for why, n in each.items()]  # fmt: skip
        found += [f"duplicates: {n} rows of {split} repeat a text" for split, n in self.duplicates.items() if n]
        for leak in self.leaks:
            shown = ", ".join(_excerpt(text) for text in leak.examples)
            found.append(f"leak: {leak.rows} rows of {leak.source} have a text of {leak.target} ({shown})")
        found += self.notes
        return found + self._table()

    def _table(self) -> list[str]:
        splits = list(self.label_counts)
        width = max([len(name) for name in (*self.label_names, "(no label)")])
        head = f"{'label':<{width}} " + " ".join(f"{split:>10}" for split in splits)
        counts = {name: [self.label_counts[split][name] for split in splits] for name in self.label_names}
        counts["(no label)"] = [self.without_label[split] for split in splits]
        return [
            head,
            *(f"{name:<{width}} " + " ".join(f"{n:>10,}" for n in row) for name, row in counts.items()),
        ]


@dataclass(frozen=True)
class Corpus:
    """Texts and labels that a trial trains, validates and is tested on."""

    name: str
    label_names: list[str]
    multilabel: bool  # False when every row of every labelled split has exactly one label
    train: Split
    validation: Split
    test: Split | None
    fingerprint: str
    report: CorpusReport

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


def fingerprint(label_names: Sequence[str], splits: dict[str, Split]) -> str:
    """sha256 (hex) over label names and the ids, texts and labels of all splits."""
    digest = hashlib.sha256(json.dumps(list(label_names)).encode())
    for name, split in splits.items():
        digest.update(json.dumps([name, split.ids, split.texts]).encode())
        digest.update(np.ascontiguousarray(split.labels, dtype=np.uint8).tobytes())
    return digest.hexdigest()


def is_multilabel(splits: dict[str, Split]) -> bool:
    """Whether any labelled row has none or several of the labels."""
    return any(bool((split.labels.sum(axis=1) != 1).any()) for split in splits.values() if split.labelled)


def count_labels(label_names: Sequence[str], split: Split) -> dict[str, int]:
    """Rows with each label."""
    return {name: int(n) for name, n in zip(label_names, split.labels.sum(axis=0, dtype=np.int64), strict=True)}


def _excerpt(text: str) -> str:
    """The beginning of a text on one line, quoted, without control characters."""
    shown = "".join(char if char.isprintable() else " " for char in " ".join(text.split()))
    return json.dumps(
        shown if len(shown) <= _EXCERPT_CHARS else shown[: _EXCERPT_CHARS - 3] + "...", ensure_ascii=False
    )
