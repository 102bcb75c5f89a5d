"""Which column holds the texts, which the labels, which the ids; and whether a first line is a header.

What is configured is taken, what is not is guessed: by the usual names first, else by what the columns hold
(the texts are the longest strings, labels recur, ids never do). Every guess is told, so that a wrong one is
seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from emotion_sweeps.data.table import Table, list_names, lookup
from emotion_sweeps.errors import UserError

TEXT_NAMES = ("text", "tweet", "sentence", "content", "comment", "utterance", "document", "post", "message",
              "comment_text", "tweet_text", "text_a", "sentence1", "body", "review", "input", "texts")  # fmt: skip
LABEL_NAMES = ("label_text", "label_name", "labels", "label", "emotions", "emotion", "classes", "class", "categories",
               "category", "sentiment", "emotion_label", "affect", "target", "tags", "tag", "output")  # fmt: skip
ID_NAMES = ("id", "ids", "idx", "index", "uid", "uuid", "guid", "tweet_id", "comment_id", "text_id", "example_id",
            "post_id", "message_id", "row_id")  # fmt: skip
UNLABELLED = ("none", "")
BINARY = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
_IDS = re.compile(r"-?\d+(\.0)?(\s*[,;| ]\s*\d+)*")
_SAMPLE_ROWS = 2000


@dataclass(frozen=True)
class ColumnSettings:
    """The user's column settings; None means "find out"."""

    text_column: str | int | None = None
    label_column: str | int | None = None
    label_columns: list[str] | None = None
    id_column: str | int | None = None

    def names(self) -> list[str]:
        """All columns that were given by name."""
        single = (self.text_column, self.label_column, self.id_column)
        given = [*single, *(self.label_columns or [])]
        return [name for name in given if isinstance(name, str) and not name.isdigit()]


@dataclass(frozen=True)
class Roles:
    """The columns of one table by what they are for; `labels` is empty where the table has none."""

    text: str
    labels: list[str]
    binary: bool  # one 0/1 column a label, instead of one column that holds the labels
    id: str | None
    assumed: list[str]

    @property
    def taken(self) -> set[str]:
        """Every column that has a role."""
        return {self.text, *self.labels, *([self.id] if self.id else [])}


def has_header(rows: Sequence[Sequence[str]], wanted: Sequence[str]) -> bool:
    """Whether the first row names the columns.

    Yes when it holds a configured or a usual name, or a word over a column of numbers; no when it holds a
    number over a column of numbers, or a value that recurs below it; otherwise yes when every field looks
    like a name.
    """
    first = [field.strip() for field in rows[0]]
    known = {name.casefold() for name in (*wanted, *TEXT_NAMES, *LABEL_NAMES, *ID_NAMES)}
    if wanted or any(field.casefold() in known for field in first):
        return True
    body = [row for row in rows[1:_SAMPLE_ROWS] if len(row) == len(first)]
    recurs = False
    for index, name in enumerate(first):
        values = [row[index].strip() for row in body]
        if values and all(_IDS.fullmatch(value) for value in values):
            return not _IDS.fullmatch(name)
        recurs |= name in values
    if recurs or len(set(first)) < len(first):
        return False
    return len(body) > 0 and all(re.fullmatch(r"[^\W\d][\w .-]{0,30}", name) and name.count(" ") < 3 for name in first)


def find_roles(
    table: Table, settings: ColumnSettings, label_names: list[str] | None, *, labels_needed: bool = True
) -> Roles:
    """The text, label and id columns of a table, configured or guessed.

    Args:
        label_names: the configured label names; where they all name columns, those are the label columns.
        labels_needed: whether a table without labels is an error (not for a test part to be predicted only).
    Raises:
        UserError: a configured column is missing, or one that is needed cannot be found.
    """
    assumed: list[str] = []
    text = _find_text(table, settings, assumed)
    labels, binary = _given_labels(table, settings, label_names, labels_needed)
    if labels is None:
        labels, binary = _guess_labels(table, {text, *_configured(table, settings)}, assumed)
    if not labels and labels_needed:
        raise UserError(
            f"{table.key}: {table.source} has no label column that could be recognised; its columns are"
            f" {list_names(table.names)}; give data.label_column or data.label_columns{_delimiter_hint(table)}"
        )
    identity = _find_id(table, settings, {text, *labels}, assumed)
    return Roles(text, labels, binary, identity, assumed)


def follow_roles(
    table: Table, first: Table, roles: Roles, settings: ColumnSettings, *, labels_needed: bool = True
) -> Roles:
    """The columns of a further split: those of the first one where it has them, else found anew.

    A test part may lack the label columns, or hold nothing but "NONE" in them, so it cannot be guessed from
    alone.
    """
    if not table.has_names and len(table.names) != len(first.names):
        return find_roles(table, settings, None, labels_needed=labels_needed)
    guessed = {name for name in roles.taken if lookup(table.names, name) is None}
    return find_roles(
        table,
        ColumnSettings(
            text_column=settings.text_column if roles.text in guessed else roles.text,
            label_column=None if roles.binary else _unless_guessed(roles.labels[0], guessed, settings.label_column),
            label_columns=roles.labels if roles.binary else None,
            id_column=None if roles.id in guessed else roles.id,
        ),
        None,
        labels_needed=labels_needed,
    )


def _unless_guessed(name: str, guessed: set[str], configured: str | int | None) -> str | int | None:
    return configured if name in guessed else name


def _find_text(table: Table, settings: ColumnSettings, assumed: list[str]) -> str:
    if settings.text_column is not None:
        return table.find(settings.text_column, "data.text_column")
    taken = _configured(table, settings)
    by_name = _first_known(table, TEXT_NAMES, taken)
    free = [name for name in table.names if name not in taken]
    if not by_name and not any(_mean_length(table, name) for name in free):
        raise UserError(
            f"{table.key}: {table.source} has no text column that could be recognised; its columns are"
            f" {list_names(table.names)}; give data.text_column{_delimiter_hint(table)}"
        )
    name = by_name or max(free, key=lambda each: _mean_length(table, each))
    assumed.append(f"texts in column {name!r} ({'by its name' if by_name else 'the longest strings'})")
    return name


def _given_labels(
    table: Table, settings: ColumnSettings, label_names: list[str] | None, labels_needed: bool
) -> tuple[list[str] | None, bool]:
    """The configured label columns and whether they are 0/1 columns; None where nothing is configured."""
    if settings.label_columns:
        present = [lookup(table.names, name) for name in settings.label_columns]
        if not labels_needed and not any(present):
            return [], True
        return [table.find(name, "data.label_columns") for name in settings.label_columns], True
    if settings.label_column is not None:
        if not labels_needed and lookup(table.names, settings.label_column) is None:
            return [], False
        return [table.find(settings.label_column, "data.label_column")], False
    if table.has_names and label_names:
        columns = [lookup(table.names, name) for name in label_names]
        if all(columns):
            return [name for name in columns if name], True
    return None, False


def _guess_labels(table: Table, taken: set[str], assumed: list[str]) -> tuple[list[str], bool]:
    """Label columns by their names, else two or more columns of 0/1, else the column whose values recur most."""
    by_name = _first_known(table, LABEL_NAMES, taken)
    if by_name:
        assumed.append(f"labels in column {by_name!r} (by its name)")
        return [by_name], False
    free = [name for name in table.names if name not in taken and name.casefold() not in ID_NAMES]
    flags = [name for name in free if _is_binary(table.columns[name])]
    if len(flags) > 1:
        assumed.append(f"labels in the 0/1 columns {list_names(flags)}")
        return flags, True
    share = {name: _distinct_share(table.columns[name]) for name in free}
    # With a header a column of free text must not pass for labels; without one, or in few rows, it is all there is.
    limit = 0.5 if table.has_names and len(table) >= 50 else 0.999
    recurring = [name for name in free if share[name] <= limit or _holds_lists(table.columns[name])]
    if not table.has_names and len(free) == 1:
        recurring = free
    if not recurring:
        return [], False
    name = min(recurring, key=lambda each: share[each])
    assumed.append(f"labels in column {name!r} (its values recur most)")
    return [name], False


def _find_id(table: Table, settings: ColumnSettings, taken: set[str], assumed: list[str]) -> str | None:
    if settings.id_column is not None:
        return table.find(settings.id_column, "data.id_column")
    name = _first_known(table, ID_NAMES, taken)
    if name:
        return name
    if table.has_names:
        return None
    unique = [each for each in table.names if each not in taken and _is_unique(table.columns[each])]
    if unique:
        assumed.append(f"ids in column {unique[0]!r} (no value recurs)")
    return unique[0] if unique else None


def _configured(table: Table, settings: ColumnSettings) -> set[str]:
    given = [settings.label_column, settings.id_column, *(settings.label_columns or [])]
    return {name for each in given if each is not None and (name := lookup(table.names, each))}


def _first_known(table: Table, known: Sequence[str], taken: set[str]) -> str | None:
    if not table.has_names:
        return None
    for name in known:
        column = lookup(table.names, name)
        if column and column not in taken:
            return column
    return None


def _delimiter_hint(table: Table) -> str:
    return "; give data.delimiter if its rows have more than one field" if len(table.names) == 1 else ""


def _mean_length(table: Table, name: str) -> float:
    values = [value for value in table.columns[name][:_SAMPLE_ROWS] if isinstance(value, str)]
    return sum(map(len, values)) / max(1, len(values))


def _is_binary(values: Sequence[object]) -> bool:
    seen = {str(value).strip().casefold() for value in values if value is not None}
    return bool(seen & BINARY.keys()) and seen <= {*BINARY, *UNLABELLED}


def _is_unique(values: Sequence[object]) -> bool:
    return len(values) > 1 and len({str(value) for value in values}) == len(values)


def _distinct_share(values: Sequence[object]) -> float:
    sample = values[:_SAMPLE_ROWS]
    return len({str(value) for value in sample}) / max(1, len(sample))


def _holds_lists(values: Sequence[object]) -> bool:
    return any(isinstance(value, list) for value in values[:_SAMPLE_ROWS])
