"""Few-shot examples: rows of the training part that show every label as equally often as they occur together.

Greedy: the label shown least so far (ties by a seeded order) gets the next row, drawn from the unused ones that have
it; in multi-label data a row without labels is one more kind. Long texts are left aside while there are short ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emotion_sweeps.errors import UserError

SHORT_CHARACTERS = 300


def draw_examples(texts: Sequence[str], labels: NDArray[np.uint8], count: int, *, seed: int) -> list[int]:
    """The rows of `count` examples, in the order in which they are shown.

    Args:
        labels: `(num_examples, num_labels)` multi-hot, of the training part alone.
    Raises:
        UserError: there are not that many different training texts.
    """
    rng = np.random.default_rng([seed, 0xE7])
    rows = _candidates(texts, count, rng)
    kinds = np.concatenate([labels, labels.sum(axis=1, keepdims=True) == 0], axis=1).astype(bool)
    present = [int(kind) for kind in rng.permutation(kinds.shape[1]) if kinds[rows, kind].any()]
    shown, chosen = dict.fromkeys(present, 0), list[int]()
    while len(chosen) < count:
        left = [kind for kind in present if any(kinds[row, kind] for row in rows)]
        rarest = min(left, key=lambda kind: shown[kind])
        row = next(row for row in rows if kinds[row, rarest])
        rows.remove(row)
        chosen.append(row)
        for kind in present:
            shown[kind] += int(kinds[row, kind])
    return chosen


def _candidates(texts: Sequence[str], count: int, rng: np.random.Generator) -> list[int]:
    """Rows of different non-empty texts in random order, the short ones alone where those suffice."""
    first_of: dict[str, int] = {}
    for row in map(int, rng.permutation(len(texts))):
        if texts[row].strip():
            first_of.setdefault(texts[row].strip(), row)
    rows = list(first_of.values())
    if len(rows) < count:
        raise UserError(
            f"task.few_shot={count} examples are more than the {len(rows)} different training texts; lower it"
        )
    short = [row for row in rows if len(texts[row]) <= SHORT_CHARACTERS]
    return short if len(short) >= 4 * count else rows
