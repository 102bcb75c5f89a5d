"""A table as it was read: named columns, the line each row came from, what was assumed and what was left out.

Every reader (delimited text, JSON lines, Parquet, a hub data set) ends here, so that guessing columns and
decoding labels is written once. `key` is the configuration key that named the source ("data.train"):
messages begin with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from emotion_sweeps.errors import UserError, did_you_mean

MAX_MALFORMED_SHARE = 0.05


@dataclass
class Dropped:
    """Rows left out of one source: how many for each reason, and the first line of each."""

    counts: Counter[str] = field(default_factory=Counter)
    first_line: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, line: int) -> None:
        """Count one more row left out at `line` for `reason`."""
        self.counts[reason] += 1
        self.first_line.setdefault(reason, line)

    def describe(self) -> str:
        """All reasons in words: `2 with an empty text (first at line 7)`."""
        return ", ".join(f"{n} with {why} (first at line {self.first_line[why]})" for why, n in self.counts.items())


@dataclass(frozen=True)
class Table:
    """The rows of one source, column by column, in file order."""

    key: str
    source: str
    columns: dict[str, list[object]]
    lines: list[int]
    has_names: bool = True
    class_names: dict[str, list[str]] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    dropped: Dropped = field(default_factory=Dropped)

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def names(self) -> list[str]:
        """The column names, in file order (`"0"`, `"1"`, ... where the file has no header)."""
        return list(self.columns)

    def where(self, row: int) -> str:
        """`file:line` of a row, for messages."""
        return f"{self.source}:{self.lines[row]}"

    def find(self, wanted: str | int, setting: str) -> str:
        """The name of the column that `wanted` (a name, or an index from 0) means.

        Raises:
            UserError: there is no such column; the columns that there are, are listed.
        """
        name = lookup(self.names, wanted)
        if name is None:
            raise UserError(
                f"{setting}: {self.source} has no column {wanted!r}; its columns are {list_names(self.names)}"
                f"{did_you_mean(wanted, self.names)}"
            )
        return name

    def keep(self, rows: Sequence[int]) -> Table:
        """The same table with only these rows."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        lines = [self.lines[row] for row in rows]
        return Table(
            self.key,
            self.source,
            columns,
            lines,
            self.has_names,
            self.class_names,
            self.assumed,
            self.dropped,
        )


def lookup(names: Sequence[str], wanted: str | int) -> str | None:
    """The column that a name (exact, else whatever its case) or an index means; None when there is none."""
    if isinstance(wanted, int):
        return names[wanted] if 0 <= wanted < len(names) else None
    if wanted in names:
        return wanted
    if wanted.isdigit():
        return lookup(names, int(wanted))
    folded = [name for name in names if name.strip().casefold() == wanted.strip().casefold()]
    return folded[0] if len(folded) == 1 else None


def list_names(names: Sequence[object], limit: int = 30) -> str:
    """Names for a message, cut after `limit`."""
    shown = ", ".join(str(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"


def refuse_many_malformed(table: Table) -> None:
    """Stop where more than a few percent of a source's rows had to be left out: then it was read wrongly.

    Raises:
        UserError: the share is above MAX_MALFORMED_SHARE.
    """
    bad = table.dropped.counts.total()
    total = bad + len(table)
    if bad > MAX_MALFORMED_SHARE * total:
        reading = f"; it was read as: {'; '.join(table.assumed)}" if table.assumed else ""
        raise UserError(
            f"{table.key}: {bad} of {total} rows of {table.source} cannot be used: {table.dropped.describe()}{reading};"
            f" more than {MAX_MALFORMED_SHARE:.0%} is an error: mend the file, or set data.format, data.delimiter,"
            " data.header or the column settings"
        )
