"""Label cells into a multi-hot matrix `(num_examples, num_labels)`: names, ids, lists, separated text, 0/1 columns.

The vocabulary is the configured one (`data.labels`: a list, or a file of one name a line), else the one a
hub data set carries, else what the data hold: names in alphabetical order, or `label_<id>` in the order of
the ids. A cell that says nothing (null, -1, "NONE") marks a row as unlabelled, which is not the same as
having none of the labels.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_sweeps.data.columns import BINARY, UNLABELLED, Roles
from emotion_sweeps.data.files import decode
from emotion_sweeps.data.table import Table, list_names
from emotion_sweeps.errors import UserError, did_you_mean

NAMED_SEPARATORS = {"comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_SEPARATORS = (",", ";", "|", " ")
_WHOLE_NUMBER = re.compile(r"\d+(\.0)?")
Token = str | int
Cell = str | list[Token] | None


@dataclass(frozen=True)
class Decoded:
    """The labels of several tables under one vocabulary."""

    label_names: list[str]
    matrices: list[NDArray[np.uint8]]
    missing: list[NDArray[np.bool_]]  # rows that say nothing about their labels
    notes: list[str]


def read_label_names(labels: list[str] | str | None) -> list[str] | None:
    """The configured label names: a list as it is, or the lines of a file (the id is the line number, from 0).

    Raises:
        UserError: the file is missing or empty, or a name comes up twice.
    """
    if labels is None:
        return None
    if isinstance(labels, str):
        path = Path(labels).expanduser()
        if not path.is_file():
            raise UserError(
                f"data.labels: file not found: {labels}; give a list such as [anger,joy], or a file of one name a line"
            )
        text = decode(path.read_bytes(), "data.labels", path.name).rstrip()
        labels = text.split("\n") if text else []
    names = [str(name).strip() for name in labels]
    if not names or "" in names:
        raise UserError("data.labels: empty label name; give one name a line, without blank lines in between")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"data.labels: {twice[0]!r} comes up twice; every label needs a name of its own")
    return names


def decode_columns(tables: Sequence[tuple[Table, Roles]], names: list[str] | None) -> Decoded:
    """0/1 columns (also true/false and 0.0/1.0), one a label; "NONE" and empty mean unlabelled.

    Raises:
        UserError: another value stands in a label column.
    """
    table, roles = tables[0]
    columns = roles.labels if table.has_names else [f"label_{index}" for index in range(len(roles.labels))]
    renamed = names if names and len(names) == len(columns) else columns
    matrices: list[NDArray[np.uint8]] = []
    missing: list[NDArray[np.bool_]] = []
    for table, roles in tables:
        block = np.zeros((len(table), len(columns)), dtype=np.int8)
        for position, name in enumerate(roles.labels):
            block[:, position] = [_binary(value, table, row, name) for row, value in enumerate(table.columns[name])]
        missing.append(np.asarray((block < 0).any(axis=1) if roles.labels else np.ones(len(table)), dtype=np.bool_))
        matrices.append(np.maximum(block, 0).astype(np.uint8))
    return Decoded(list(renamed), matrices, missing, [])


def decode_cells(tables: Sequence[tuple[Table, Roles]], names: list[str] | None, separator: str | None) -> Decoded:
    """One column that holds a row's labels; a table without it comes out unlabelled.

    Args:
        separator: `data.label_separator`; None finds out whether and how labels in one cell are separated.
    Raises:
        UserError: a label that is not in the configured vocabulary, or so many labels that they cannot be
        labels.
    """
    cells = [_cells_of(table, roles) for table, roles in tables]
    known = names or _class_names(tables)
    given = NAMED_SEPARATORS.get(separator, separator) if separator else None
    texts = {cell for column in cells for cell in column if isinstance(cell, str) and cell}
    found = given or find_separator(texts, known)
    notes = [f"labels separated by {found!r}"] if found and not given else []
    several = bool(found) or any(isinstance(cell, list) for column in cells for cell in column)
    tokens = [[_tokens(cell, found, several) for cell in column] for column in cells]
    vocabulary = known or _vocabulary(tables, tokens)
    lookup = _Lookup(vocabulary, numbered=known is not None)
    matrices, missing = [], []
    for (table, _), column in zip(tables, tokens, strict=True):
        matrix = np.zeros((len(table), len(vocabulary)), dtype=np.uint8)
        for row, row_tokens in enumerate(column):
            for token in row_tokens or ():
                matrix[row, lookup.position(token, table, row)] = 1
        matrices.append(matrix)
        missing.append(np.array([row_tokens is None for row_tokens in column], dtype=bool))
    return Decoded(vocabulary, matrices, missing, notes + _case_notes(vocabulary))


def find_separator(cells: Iterable[str], names: list[str] | None) -> str | None:
    """What separates several labels in one cell of text; None when every cell is one label.

    With a vocabulary: what leaves the fewest unknown labels, then finds the most known ones. Without: a comma,
    semicolon or pipe wherever there is one; a blank only if every word of such a cell stands alone in another cell
    (so "very happy" stays one label).
    """
    distinct = set(cells)
    if names:
        known = {name.casefold() for name in names} | {str(index) for index in range(len(names))}
        parts = {each: {part.casefold() for part in _split_all(distinct, each)} for each in (None, *_SEPARATORS)}
        if parts[None] <= known:
            return None
        return min(parts, key=lambda each: (len(parts[each] - known), -len(parts[each] & known)))
    for separator in _SEPARATORS[:-1]:
        if any(separator in cell for cell in distinct):
            return separator
    numbers = any(" " in cell for cell in distinct) and all(re.fullmatch(r"\d+( +\d+)*", cell) for cell in distinct)
    words = {word for cell in distinct if " " in cell for word in cell.split()}
    return " " if numbers or (words and words <= distinct) else None


class _Lookup:
    """From a label as it is written to its column: by name, by name in another case, by id."""

    def __init__(self, vocabulary: list[str], *, numbered: bool) -> None:
        self.vocabulary = vocabulary
        self.numbered = numbered
        self.by_name = {name: index for index, name in enumerate(vocabulary)}
        self.by_folded = {name.casefold(): index for index, name in enumerate(vocabulary)}

    def position(self, token: Token, table: Table, row: int) -> int:
        name = str(token)
        number = _as_id(token)
        if not self.numbered and number is not None:
            name = f"label_{number}" if name not in self.by_name else name
        index = self.by_name.get(name, self.by_folded.get(name.casefold()))
        if index is None and number is not None and number < len(self.vocabulary):
            index = number
        if index is None:
            self._refuse(token, number, table, row)
        return int(index or 0)

    def _refuse(self, token: Token, number: int | None, table: Table, row: int) -> None:
        names = f"the labels are {list_names(self.vocabulary)}"
        if number is not None:
            raise UserError(
                f"{table.key}: unknown label id {number} at {table.where(row)}; ids count from 0 to"
                f" {len(self.vocabulary) - 1}; {names}; complete data.labels"
            )
        raise UserError(
            f"{table.key}: unknown label {token!r} at {table.where(row)}; {names}; mend the row, or data.labels, or"
            f" data.label_separator{did_you_mean(token, self.vocabulary)}"
        )


def _cells_of(table: Table, roles: Roles) -> list[Cell]:
    if not roles.labels:
        return [None] * len(table)
    return [_parse_cell(value) for value in table.columns[roles.labels[0]]]


def _parse_cell(value: object) -> Cell:
    """One cell as written (a text), as a list, or as None where it says nothing."""
    if isinstance(value, dict):
        return [str(name) for name, flag in value.items() if flag]
    if isinstance(value, (list, tuple)):
        return [_token(each) for each in value if each is not None]
    if value is None or isinstance(value, float) and math.isnan(value) or value in (-1, "-1"):
        return None
    if not isinstance(value, str):
        return str(_token(value))
    text = value.strip()
    return _parse_list(text) if text[:1] + text[-1:] in ("[]", "()", "{}") else text


def _parse_list(text: str) -> list[Token]:
    """A list written as text: JSON, Python, or numpy's way (`[0 3]`), which has blanks alone."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, dict):
            return [str(name) for name, flag in value.items() if flag]
        return [_token(each) for each in (value if isinstance(value, (list, tuple, set)) else [value])]
    words = re.split(r"[,;|]" if re.search(r"[,;|]", text) else r"\s", text[1:-1])
    return [name for word in words if (name := word.strip().strip("'\""))]


def _token(value: object) -> Token:
    if isinstance(value, (bool, int, np.integer)):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return str(value).strip()


def _tokens(cell: Cell, separator: str | None, several: bool) -> list[Token] | None:
    """The labels of a cell; an empty cell means "none of them" only where cells can hold several."""
    if cell is None or isinstance(cell, list):
        return cell
    if not cell:
        return [] if several else None
    return list(_split_all([cell], separator))


def _split_all(cells: Iterable[str], separator: str | None) -> list[str]:
    if separator is None:
        return [cell for cell in cells if cell]
    return [part.strip() for cell in cells for part in cell.split(separator) if part.strip()]


def _as_id(token: Token) -> int | None:
    if isinstance(token, int):
        return token if token >= 0 else None
    return int(float(token)) if _WHOLE_NUMBER.fullmatch(token) else None


def _class_names(tables: Sequence[tuple[Table, Roles]]) -> list[str] | None:
    for table, roles in tables:
        if roles.labels and table.class_names.get(roles.labels[0]):
            return table.class_names[roles.labels[0]]
    return None


def _vocabulary(tables: Sequence[tuple[Table, Roles]], tokens: Sequence[Sequence[list[Token] | None]]) -> list[str]:
    """The labels that occur: `label_<id>` when all are whole numbers, else their names in alphabetical order."""
    seen = {token for column in tokens for row in column for token in row or ()}
    ids = {number for token in seen if (number := _as_id(token)) is not None}
    num_rows = sum(len(column) for column in tokens)
    if len(seen) > max(50, num_rows // 4):
        table, roles = tables[0]
        raise UserError(
            f"{table.key}: column {roles.labels[0]!r} of {table.source} holds {len(seen)} different values in"
            f" {num_rows} rows, so they are no labels; give data.label_column, data.label_separator or data.labels"
        )
    if all(_as_id(token) is not None for token in seen):
        return [f"label_{number}" for number in sorted(ids)]
    return sorted({str(token) for token in seen})


def _case_notes(vocabulary: list[str]) -> list[str]:
    folded: dict[str, str] = {}
    for name in vocabulary:
        first = folded.setdefault(name.casefold(), name)
        if first != name:
            return [f"labels {first!r} and {name!r} differ in case alone and count as two; data.labels can merge them"]
    return []


def _binary(value: object, table: Table, row: int, name: str) -> int:
    text = str(value).strip().casefold()
    if value is None or text in UNLABELLED or text == "nan":
        return -1
    if text not in BINARY:
        raise UserError(
            f"{table.key}: label column {name!r} holds {value!r} at {table.where(row)}; it must be 0 or 1 (or"
            " true/false); mend it, or name the label columns in data.label_columns"
        )
    return BINARY[text]
