"""Errors that a user can mend: one line, exit code 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the configuration or the input, told in one line: config path, rule, value, remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def did_you_mean(got: object, known: Iterable[str]) -> str:
    """A suffix naming the nearest known spelling (`'; did you mean "joy"?'`), or an empty string."""
    near = difflib.get_close_matches(str(got), list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
