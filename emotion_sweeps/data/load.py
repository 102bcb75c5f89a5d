"""From the `data` settings to a corpus: read, find the columns, decode labels, split, check for leaks, subsample.

The steps are those of the modules beside this one; here is their order, and what is told about it in the
report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources

import numpy as np

from emotion_sweeps.data.assemble import SPLITS, Rows, assemble, cut_missing
from emotion_sweeps.data.columns import ColumnSettings, Roles, find_roles, follow_roles
from emotion_sweeps.data.corpus import Corpus, Split, is_multilabel
from emotion_sweeps.data.files import read_tables
from emotion_sweeps.data.hub import read_hub
from emotion_sweeps.data.labels import Decoded, decode_cells, decode_columns, read_label_names
from emotion_sweeps.data.table import Table, list_names, refuse_many_malformed
from emotion_sweeps.errors import UserError, did_you_mean

SOURCES = ("demo", "files", "hub")
DEMO_LABELS = ["anger", "anticipation", "disgust", "fear", "joy", "love", "optimism", "pessimism", "sadness",
               "surprise", "trust"]  # fmt: skip


def load_corpus(
    *,
    source: str,
    name: str,
    train: str | None,
    validation: str | None,
    test: str | None,
    format: str,
    delimiter: str | None,
    header: bool | None,
    text_column: str | int | None,
    label_column: str | int | None,
    label_columns: list[str] | None,
    id_column: str | int | None,
    label_separator: str | None,
    labels: list[str] | str | None,
    path: str | None,
    config_name: str | None,
    revision: str | None,
    validation_fraction: float,
    test_fraction: float,
    split_seed: int,
    max_samples: int | None,
    max_eval_samples: int | None,
    drop_leaks: bool,
) -> Corpus:
    """Read a corpus as the `data` settings say (docs/data.md has the table of them).

    Raises:
        UserError: whatever a user can mend, in one line that begins with the setting.
    """
    given = {"train": train, "validation": validation, "test": test}
    _check_numbers(max_samples, max_eval_samples)
    settings = ColumnSettings(text_column, label_column, label_columns or None, id_column)
    label_names = read_label_names(labels)
    if source == "demo":
        tables, settings = _read_demo(), ColumnSettings("text", "labels", None, "id")
        label_names = label_names or DEMO_LABELS
    elif source == "files":
        paths = _paths(given)
        tables = read_tables(paths, format=format, delimiter=delimiter, header=header, wanted=settings.names())
    elif source == "hub":
        tables = _read_hub(path, config_name, revision, given)
    else:
        raise UserError(
            f"data.source: unknown source {source!r}; it must be one of {', '.join(SOURCES)}"
            f"{did_you_mean(source, SOURCES)}"
        )
    rows = _decode(tables, settings, label_names, label_separator)
    return assemble(
        name,
        cut_missing(rows, validation_fraction, test_fraction, split_seed),
        limits={"train": max_samples, "validation": max_eval_samples, "test": max_eval_samples},
        seed=split_seed,
        drop_leaks=drop_leaks,
    )


def _check_numbers(max_samples: int | None, max_eval_samples: int | None) -> None:
    for setting, value in (("max_samples", max_samples), ("max_eval_samples", max_eval_samples)):
        if value is not None and value < 1:
            raise UserError(f"data.{setting} must be >= 1, got {value}; leave it out (null) to use every row")


def _paths(given: dict[str, str | None]) -> dict[str, str]:
    if not given["train"]:
        raise UserError(
            "data.train: no file given; data.source=files needs data.train=<TSV, CSV, JSONL or Parquet file>"
        )
    return {f"data.{split}": path for split, path in given.items() if path}


def _read_demo() -> dict[str, Table]:
    folder = resources.files("emotion_sweeps.data").joinpath("demo")
    with resources.as_file(folder) as files:
        return read_tables({f"data.{split}": str(files / f"{split}.jsonl") for split in SPLITS}, format="jsonl")


def _read_hub(
    path: str | None, config_name: str | None, revision: str | None, given: dict[str, str | None]
) -> dict[str, Table]:
    if not path:
        raise UserError("data.path: nothing given; data.source=hub needs a hub id (dair-ai/emotion) or a local folder")
    return read_hub(path, config_name=config_name, revision=revision, splits=given)


def _decode(
    tables: dict[str, Table], settings: ColumnSettings, label_names: list[str] | None, separator: str | None
) -> Rows:
    """Columns found, empty texts and unlabelled rows left out, labels decoded under one vocabulary."""
    _refuse_empty(tables.values())
    read: list[tuple[Table, Roles]] = []
    for key, table in tables.items():
        if not read:
            roles = find_roles(table, settings, label_names)
        else:
            roles = follow_roles(table, *read[0], settings, labels_needed=key != "data.test")
            _refuse_mixed(table, roles, read[0][1])
        read.append((_without_empty_texts(table, roles), roles))
    binary = read[0][1].binary
    decoded = decode_columns(read, label_names) if binary else decode_cells(read, label_names, separator)
    splits: dict[str, Split] = {}
    for position, (table, roles) in enumerate(read):
        splits[table.key.removeprefix("data.")] = _to_split(table, roles, decoded, position)
        refuse_many_malformed(table)
    _refuse_foreign_labels(splits, read)
    _refuse_single_label(decoded.label_names, splits, tables["data.train"])
    dropped = {table.source: dict(table.dropped.counts) for table, _ in read if table.dropped.counts}
    return Rows(decoded.label_names, splits, dropped, _assumptions(read), _notes(decoded, splits))


def _refuse_empty(tables: Iterable[Table]) -> None:
    for table in tables:
        if not len(table):
            found = f" ({table.dropped.describe()})" if table.dropped.counts else ""
            raise UserError(f"{table.key}: {table.source} has no usable row{found}; give a file with rows")


def _refuse_mixed(table: Table, roles: Roles, first: Roles) -> None:
    if roles.labels and roles.binary != first.binary:
        raise UserError(
            f"{table.key}: {table.source} gives its labels in another form than the training part (0/1 columns against"
            " one column); write both alike"
        )


def _refuse_foreign_labels(splits: dict[str, Split], read: Sequence[tuple[Table, Roles]]) -> None:
    """A part whose labels training hardly knows was read wrongly: its columns stand in another order, as a rule."""
    unknown = ~splits["train"].labels.any(axis=0)
    for table, _ in read:
        split = splits[table.key.removeprefix("data.")]
        foreign = int(split.labels.astype(bool)[:, unknown].any(axis=1).sum()) if split.labelled else 0
        if foreign > len(split) / 2:
            raise UserError(
                f"{table.key}: {foreign} of {len(split)} rows of {table.source} have labels that no training row has; "
                "are its columns in another order? set data.header and the columns, or give data.labels"
            )


def _refuse_single_label(label_names: list[str], splits: dict[str, Split], table: Table) -> None:
    if len(label_names) < 2 and not is_multilabel(splits):
        raise UserError(
            f"data.train: every row of {table.source} has the same label ({list_names(label_names)}); there is nothing"
            " to tell apart; check data.label_column"
        )


def _without_empty_texts(table: Table, roles: Roles) -> Table:
    kept: list[int] = []
    for row, value in enumerate(table.columns[roles.text]):
        if value is not None and str(value).strip():
            kept.append(row)
        else:
            table.dropped.add("an empty text", table.lines[row])
    return table if len(kept) == len(table) else table.keep(kept)


def _to_split(table: Table, roles: Roles, decoded: Decoded, position: int) -> Split:
    """The usable rows of one table; a test part that says nothing about its labels is kept whole, unlabelled."""
    missing = decoded.missing[position]
    texts = [_clean(str(value)) for value in table.columns[roles.text]]
    values = table.columns[roles.id] if roles.id else [table.where(row) for row in range(len(table))]
    ids = [str(value) for value in values]
    others = [name for name in table.names if name not in roles.taken]
    columns = {name: ["" if v is None else str(v) for v in table.columns[name]] for name in others}
    split = Split(ids, texts, decoded.matrices[position], columns)
    if not missing.any():
        return split
    if missing.all() and table.key == "data.test":
        return Split(ids, texts, split.labels, columns, labelled=False)
    for row in np.flatnonzero(missing).tolist():
        table.dropped.add("no label", table.lines[row])
    if missing.all():
        raise UserError(
            f"{table.key}: no row of {table.source} has a label; give a labelled file, or check data.label_column"
        )
    return split.keep(np.flatnonzero(~missing).tolist())


def _clean(text: str) -> str:
    """Blanks at the ends removed; halves of surrogate pairs, which no tokenizer takes, become U+FFFD."""
    return text.strip().encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _assumptions(read: Sequence[tuple[Table, Roles]]) -> list[str]:
    """What was found out about the files: in full for the first, for the others only what differs."""
    lines: list[str] = []
    first = set(read[0][0].assumed)
    for position, (table, roles) in enumerate(read):
        found = table.assumed + roles.assumed if position == 0 else [t for t in table.assumed if t not in first]
        if found:
            lines.append(f"{table.source}: {', '.join(found)}")
    return lines


def _notes(decoded: Decoded, splits: dict[str, Split]) -> list[str]:
    notes = [f"note: {text}" for text in decoded.notes]
    for name, split in splits.items():
        if not split.labelled:
            notes.append(f"note: {name} came without labels; it can be predicted, not scored")
        twice = len(split.ids) - len(Counter(split.ids))
        if twice:
            notes.append(f"note: {twice} rows of {name} repeat an id")
    return notes
