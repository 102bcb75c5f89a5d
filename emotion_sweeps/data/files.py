"""Files into tables: TSV, CSV (any delimiter, with or without header), JSON, JSON lines, Parquet.

The format is taken from `data.format`, else from the content (Parquet's magic bytes, an opening brace),
else from the extension. Delimiter, quoting and header are found out where not configured, for all splits of
a data set together because they are written alike. What was found out stands in `Table.assumed`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion_sweeps.data.columns import has_header
from emotion_sweeps.data.delimited import (
    DELIMITER_NAMES,
    NAMED_DELIMITERS,
    Grid,
    choose_quoting,
    normalise_newlines,
    read_quoted,
    sniff_delimiter,
)
from emotion_sweeps.data.table import Dropped, Table
from emotion_sweeps.errors import UserError, did_you_mean

FORMATS = ("auto", "tsv", "csv", "jsonl", "parquet")
_BY_EXTENSION = {"tsv": "tsv", "tab": "tsv", "csv": "csv", "psv": "csv", "txt": "csv", "jsonl": "jsonl",
                 "ndjson": "jsonl", "json": "jsonl", "parquet": "parquet", "pq": "parquet"}  # fmt: skip
_PREFERRED = {"tsv": "\t", "tab": "\t", "csv": ",", "psv": "|"}
_HAVE_TO = "give the path of a TSV, CSV, JSONL or Parquet file"


@dataclass(frozen=True)
class _Text:
    key: str
    path: Path
    text: str
    delimiter: str


def read_tables(
    paths: Mapping[str, str],
    *,
    format: str = "auto",
    delimiter: str | None = None,
    header: bool | None = None,
    wanted: Sequence[str] = (),
) -> dict[str, Table]:
    """Read the files of one data set.

    Args:
        paths: configuration key ("data.train") -> path.
        wanted: columns configured by name (a file that is meant to have them has a header).
    Returns:
        The tables under the same keys.
    Raises:
        UserError: a file is missing, not readable as text or in no known format, or one file stands for two
        splits.
    """
    if format not in FORMATS:
        raise UserError(
            f"data.format: unknown format {format!r}; it must be one of {', '.join(FORMATS)}"
            f"{did_you_mean(format, FORMATS)}"
        )
    found = {key: _existing(key, path) for key, path in paths.items()}
    _refuse_same_file(found)
    tables: dict[str, Table] = {}
    texts: list[_Text] = []
    for key, path in found.items():
        raw = path.read_bytes()
        kind = _format_of(path, raw) if format == "auto" else format
        if kind == "parquet":
            tables[key] = _read_parquet(key, path)
        elif kind == "jsonl":
            tables[key] = _read_json(key, path, decode(raw, key, path.name))
        else:
            texts.append(_open_text(key, path, decode(raw, key, path.name), kind, delimiter))
    tables |= _read_delimited(texts, header, wanted)
    return {key: tables[key] for key in paths}


def decode(raw: bytes, key: str, name: str) -> str:
    """UTF-8 bytes (with or without byte-order mark) as text with `\\n` line ends.

    Raises:
        UserError: the bytes are not UTF-8; line and byte offset are named.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
        source = "UTF-16" if wide else "WINDOWS-1252"
        raise UserError(
            f"{key}: {name} is not UTF-8: byte 0x{raw[error.start]:02x} at line {line}, offset {error.start}; save it"
            f" as UTF-8, for example: iconv -f {source} -t UTF-8 {name} > utf8_{name}"
        ) from None
    return normalise_newlines(text.removeprefix("\ufeff"))


def _existing(key: str, path: str) -> Path:
    found = Path(path).expanduser()
    if found.is_dir():
        raise UserError(f"{key}: {path} is a folder; {_HAVE_TO} (a folder of files goes with data.source=hub)")
    if not found.is_file():
        siblings = [each.name for each in found.parent.iterdir()] if found.parent.is_dir() else []
        raise UserError(f"{key}: file not found: {path}; {_HAVE_TO}{did_you_mean(found.name, siblings)}")
    return found


def _refuse_same_file(found: Mapping[str, Path]) -> None:
    seen: dict[Path, str] = {}
    for key, path in found.items():
        first = seen.setdefault(path.resolve(), key)
        if first != key:
            raise UserError(
                f"{key}: {path} is {first} too; a split must have a file of its own (leave {key} out to have it cut"
                " from the training part)"
            )


def _format_of(path: Path, raw: bytes) -> str:
    """The format by content where that is certain, else by extension."""
    by_extension = _BY_EXTENSION.get(path.suffix.lower().removeprefix("."))
    if raw[:4] == b"PAR1":
        return "parquet"
    start = raw[:3].removeprefix(b"\xef\xbb\xbf") + raw[3:4096]
    if start.lstrip()[:1] == b"{":
        first = raw.lstrip(b"\xef\xbb\xbf \r\n\t").split(b"\n", 1)[0]
        return "jsonl" if _is_json_object(first) else by_extension or "csv"
    return by_extension or "csv"


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _open_text(key: str, path: Path, text: str, kind: str, delimiter: str | None) -> _Text:
    if not text.strip():
        raise UserError(f"{key}: {path} is empty; {_HAVE_TO} with at least one row")
    if delimiter is None:
        by_format = "\t" if kind == "tsv" else None
        preferred = _PREFERRED.get(path.suffix.lower().removeprefix("."), by_format)
        return _Text(key, path, text, sniff_delimiter(text, preferred))
    if not delimiter:
        raise UserError("data.delimiter must not be empty; leave it out (null) to have it found out")
    return _Text(key, path, text, NAMED_DELIMITERS.get(delimiter, delimiter))


def _read_delimited(texts: list[_Text], header: bool | None, wanted: Sequence[str]) -> dict[str, Table]:
    grids = [read_quoted(each.text, each.delimiter) for each in texts]
    tables: dict[str, Table] = {}
    names: list[str] = []
    for each, grid in zip(texts, choose_quoting(grids, [each.text for each in texts]), strict=True):
        with_header = _decide_header(grid, header, wanted, names)
        tables[each.key] = _grid_to_table(each, grid, with_header)
        names = names or (tables[each.key].names if with_header else [])
    return tables


def _decide_header(grid: Grid, header: bool | None, wanted: Sequence[str], names: Sequence[str]) -> bool:
    """As configured; else as in the first file of the data set; else found out."""
    if header is not None:
        return header
    if names and {field.strip().casefold() for field in grid.rows[0]} & {name.casefold() for name in names}:
        return True
    return has_header(grid.rows, wanted)


def _grid_to_table(source: _Text, grid: Grid, with_header: bool) -> Table:
    """Rows to columns; rows with another number of fields are left out and counted."""
    width = grid.width
    names = [field.strip() for field in grid.rows[0]] if with_header else [str(index) for index in range(width)]
    _check_header(source, names, width)
    dropped, rows, lines = Dropped(), [], []
    for row, line in list(zip(grid.rows, grid.lines, strict=True))[with_header:]:
        if len(row) == width:
            rows.append(row)
            lines.append(line)
        else:
            dropped.add(f"a number of fields other than {width}", line)
    columns: dict[str, list[object]] = {name: [row[index] for row in rows] for index, name in enumerate(names)}
    label = DELIMITER_NAMES.get(grid.delimiter, repr(grid.delimiter))
    assumed = [
        f"delimiter {label}",
        "CSV quoting" if grid.quoted else "quotes as plain characters (stray quotes found)",
        "a header line" if with_header else "no header line",
    ]
    return Table(source.key, source.path.name, columns, lines, with_header, assumed=assumed, dropped=dropped)


def _check_header(source: _Text, names: list[str], width: int) -> None:
    if len(names) != width:
        raise UserError(
            f"{source.key}: the header of {source.path.name} names {len(names)} columns but most rows have {width}"
            " fields; mend the header, or set data.delimiter or data.header=false"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{source.key}: the header of {source.path.name} names {twice[0]!r} twice; rename one of them")


def _read_json(key: str, path: Path, text: str) -> Table:
    """JSON lines of objects, or one JSON array of objects; what is neither is left out and counted."""
    dropped, rows, lines = Dropped(), [], []
    for line, item in _json_items(key, path, text):
        if isinstance(item, dict):
            rows.append(item)
            lines.append(line)
        else:
            dropped.add("something else than a JSON object", line)
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    table = Table(key, path.name, columns, lines, dropped=dropped)
    if not rows:
        raise UserError(f"{key}: {path} holds no JSON object; {_HAVE_TO}")
    return table


def _json_items(key: str, path: Path, text: str) -> list[tuple[int, object]]:
    if text.lstrip().startswith("["):
        try:
            whole = json.loads(text)
        except ValueError:
            whole = None
        if isinstance(whole, list):
            return list(enumerate(whole, 1))
    items: list[tuple[int, object]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                items.append((number, json.loads(line)))
            except ValueError:
                items.append((number, None))
    if not items:
        raise UserError(f"{key}: {path} is empty; {_HAVE_TO} with at least one row")
    return items


def _read_parquet(key: str, path: Path) -> Table:
    """A Parquet file; label names are taken from the schema's metadata where a hub data set left them there."""
    import pyarrow  # type: ignore[import-untyped,unused-ignore]
    from pyarrow import parquet  # type: ignore[import-untyped,unused-ignore]

    try:
        data = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{key}: {path} cannot be read as Parquet: {error}; write it anew, or set data.format"
        ) from None
    columns: dict[str, list[object]] = {name: data.column(name).to_pylist() for name in data.column_names}
    features = json.loads((data.schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    named = {name: labels for name, feature in features.items() if (labels := _class_names(feature))}
    lines = list(range(1, data.num_rows + 1))
    return Table(key, path.name, columns, lines, class_names=named)


def _class_names(feature: object) -> list[str]:
    """The names of a ClassLabel feature, or of a list of them, as they stand in a schema's metadata."""
    if not isinstance(feature, dict):
        return []
    names = feature.get("names")
    return [str(name) for name in names] if isinstance(names, list) else _class_names(feature.get("feature"))
