"""Delimited text (TSV, CSV and the like) into rows of strings, quoting and delimiter found out where not told.

Two conventions are in use for emotion data and look alike: CSV quoting, with doubled quotes (GoEmotions),
and plain tab-separated text in which a quote is just a character (SemEval). Reading the second as the first
lets one stray quote swallow rows without a word; reading the first as the second leaves doubled quotes in
the texts. So a line is unquoted only where its quotes are well-formed, and a file in which quotes that are
not outnumber those that need quoting is read as plain. Cost: lines without a quote are split; about 1 s for
500,000 of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

NAMED_DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "\\t": "\t"}
DELIMITER_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe", "": "none (one column)"}
SNIFFED = ("\t", "|", ";", ",")
_SAMPLE_LINES = 1000
_QUOTED = re.compile(r'"((?:[^"]++|"")*+)"')


@dataclass(frozen=True)
class Grid:
    """Rows of fields with the number (from 1) of the line that each began on."""

    rows: list[list[str]]
    lines: list[int]
    delimiter: str
    quoted: bool
    needed: int  # records with a well-formed quoted field that holds a quote, the delimiter or a line break
    stray: int  # records with a field that opens with a quote and is not well-formed

    @property
    def width(self) -> int:
        """The number of fields that most rows have (0 without rows)."""
        return common_width(self.rows)

    @property
    def fitting_share(self) -> float:
        """The share of rows with the common width."""
        return sum(len(row) == self.width for row in self.rows) / max(1, len(self.rows))


def common_width(rows: Iterable[list[str]]) -> int:
    """The number of fields that most rows have (0 without rows)."""
    widths = Counter(len(row) for row in rows)
    return widths.most_common(1)[0][0] if widths else 0


def normalise_newlines(text: str) -> str:
    """Line ends as a single `\\n`; a lone carriage return ends a line only in files that have no other line end."""
    text = text.replace("\r\n", "\n")
    if "\r" not in text:
        return text
    return text.replace("\r", " " if "\n" in text else "\n")


def read_plain(text: str, delimiter: str) -> Grid:
    """Every line is one row, every delimiter ends a field, quotes are characters like any other."""
    kept = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip(" ")]
    rows = [_split(line, delimiter) for _, line in kept]
    return Grid(rows, [number for number, _ in kept], delimiter, quoted=False, needed=0, stray=0)


def read_quoted(text: str, delimiter: str) -> Grid:
    """CSV quoting where it is well-formed; a line whose quotes are not is split as plain text, alone."""
    lines = text.split("\n")
    width = common_width(_split(line, delimiter) for line in lines if line.strip(" ") and '"' not in line)
    width = width or common_width(_split(line, delimiter) for line in lines if line.strip(" "))
    rows: list[list[str]] = []
    numbers: list[int] = []
    needed = stray = 0
    index = offset = 0
    while index < len(lines):
        line, taken = lines[index], 1
        if line.strip(" "):
            fields = _split(line, delimiter)
            if '"' in line:
                record = _scan_record(text, offset, delimiter)
                taken = 1 + text.count("\n", offset, record.end) if record else 1
                if record is None or _swallows_rows(lines[index : index + taken], delimiter, width):
                    stray, taken = stray + 1, 1
                else:
                    fields, needed = record.fields, needed + record.needs_quotes
            rows.append(fields)
            numbers.append(index + 1)
        offset += sum(len(each) + 1 for each in lines[index : index + taken])
        index += taken
    return Grid(rows, numbers, delimiter, quoted=True, needed=needed, stray=stray)


def choose_quoting(grids: list[Grid], texts: list[str]) -> list[Grid]:
    """The quoted readings of a data set's files, or plain readings of them all where quotes are just characters.

    Plain wins when malformed quotes outnumber (or equal) the fields that need quoting, and no file's rows
    come out less even for it. One decision for all files: a data set's splits are written alike.
    """
    stray, needed = sum(grid.stray for grid in grids), sum(grid.needed for grid in grids)
    if not stray or stray < needed:
        return grids
    plain = [read_plain(text, grid.delimiter) for text, grid in zip(texts, grids, strict=True)]
    even = all(p.fitting_share >= g.fitting_share for p, g in zip(plain, grids, strict=True))
    return plain if even else grids


def sniff_delimiter(text: str, preferred: str | None) -> str:
    """The delimiter that gives the most even rows of two fields or more; `""` when none does (one column).

    Ties go to `preferred` (what the file's extension promises), then to tab, pipe, semicolon, comma.
    """
    lines = text.split("\n", _SAMPLE_LINES)
    sample = "\n".join(lines[:_SAMPLE_LINES])
    best, best_score = "", (0.6, False)
    for delimiter in SNIFFED:
        grid = read_quoted(sample, delimiter)
        if grid.width < 2 or len(grid.rows[0]) != grid.width:
            continue
        score = (round(grid.fitting_share, 2), delimiter == preferred)
        if score > best_score:
            best, best_score = delimiter, score
    return best


@dataclass(frozen=True)
class _Record:
    fields: list[str]
    end: int
    needs_quotes: bool


def _split(line: str, delimiter: str) -> list[str]:
    return line.split(delimiter) if delimiter else [line]


def _scan_record(text: str, start: int, delimiter: str) -> _Record | None:
    """One CSV record from `start`, over line breaks inside quotes; None where a quoted field is not well-formed."""
    fields: list[str] = []
    needs_quotes = False
    position = start
    while True:
        opening = _skip_blanks(text, position, delimiter)
        if text.startswith('"', opening):
            match = _QUOTED.match(text, opening)
            if match is None:
                return None
            value = match[1].replace('""', '"')
            needs_quotes |= '"' in value or "\n" in value or bool(delimiter and delimiter in value)
            position = _skip_blanks(text, match.end(), delimiter)
        else:
            stop = _field_end(text, position, delimiter)
            value, position = text[position:stop], stop
        fields.append(value)
        if position >= len(text) or text[position] == "\n":
            return _Record(fields, position, needs_quotes)
        if not (delimiter and text.startswith(delimiter, position)):
            return None
        position += len(delimiter)


def _skip_blanks(text: str, position: int, delimiter: str) -> int:
    """Past blanks around a quoted field, unless the delimiter has blanks of its own."""
    while delimiter and delimiter == delimiter.strip() and text.startswith(" ", position):
        position += 1
    return position


def _field_end(text: str, position: int, delimiter: str) -> int:
    line_end = text.find("\n", position)
    line_end = len(text) if line_end < 0 else line_end
    stop = text.find(delimiter, position, line_end) if delimiter else -1
    return line_end if stop < 0 else stop


def _swallows_rows(lines: list[str], delimiter: str, width: int) -> bool:
    """Whether a record over several lines is really several rows: each line alone has the full number of fields."""
    return len(lines) > 1 and all(len(_split(line, delimiter)) == width for line in lines)
