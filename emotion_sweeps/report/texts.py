"""Text from data, names and errors made harmless: for markdown, for spreadsheets, for terminals.

Everything that a trial says of itself is foreign text. In markdown it must neither end a table cell nor become markup,
HTML or a link; in a spreadsheet it must not become a formula; in a terminal it must not move the cursor.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARS = 200
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_KEPT_FORMAT_CHARACTERS = "\u200d\ufe0f"  # joiner and variation selector, parts of emoji
_MARKUP = re.compile(r"([\\`*\[\]{}|~#])")
_UNDERSCORE = re.compile(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")  # inside a word it is no emphasis
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_AUTOLINK = re.compile(r"(?i)\b(https?|ftp|mailto|www)([:.])")


def plain(text: object, limit: int = MAX_CHARS) -> str:
    """One line without control or invisible characters, cut at `limit` characters."""
    collapsed = " ".join(str(text).split())
    visible = "".join(
        c for c in collapsed if c in _KEPT_FORMAT_CHARACTERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co")
    )
    return visible if len(visible) <= limit else visible[: limit - 3] + "..."


def markdown(text: object, limit: int = MAX_CHARS) -> str:
    """Text that a markdown renderer shows as it is, inside a table cell or a sentence."""
    safe = "".join(_ENTITIES.get(c, c) for c in plain(text, limit))
    safe = _UNDERSCORE.sub(r"\\_", _MARKUP.sub(r"\\\1", safe))
    safe = _AUTOLINK.sub(lambda m: m.group(1) + {":": "&#58;", ".": "&#46;"}[m.group(2)], safe)
    return f"\\{safe}" if safe.startswith(("=", "+", "-", "@")) else safe


def spreadsheet(value: object) -> object:
    """A value for a CSV cell: numbers stay numbers, text that would be a formula gets an apostrophe in front."""
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
