"""Scores on the test part from the predictions that a run wrote: of the winner, and of the best of each family."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_sweeps.paths import PREDICTIONS_DIR
from emotion_sweeps.report.results import RunRow
from emotion_sweeps.training.metrics import label_metrics


def scored_on_test(run: RunRow) -> dict[str, float] | None:
    """Label metrics of the kept weights on the test part, None where it has no labels or was not predicted.

    Raises:
        ValueError: the predictions cannot be read.
    """
    read = read_test_part(run)
    return None if read is None else label_metrics(read[1], read[0])


def read_test_part(run: RunRow) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Gold and predicted rows, `(num_examples, num_labels)` each, None where there are no labels or no predictions.

    Raises:
        ValueError: the predictions cannot be read.
    """
    path = run.folder / PREDICTIONS_DIR / "test.jsonl"
    if not path.is_file() or not run.label_names:
        return None
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        if not rows or any(row["gold"] is None for row in rows):
            return None
        gold, predicted = (_multi_hot([row[key] for row in rows], run.label_names) for key in ("gold", "predicted"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the predictions that a run writes ({type(error).__name__}: {error})") from None
    return gold, predicted


def _multi_hot(rows: Sequence[Any], names: Sequence[str]) -> NDArray[np.uint8]:
    position = {name: index for index, name in enumerate(names)}
    labels = np.zeros((len(rows), len(names)), np.uint8)
    for index, row in enumerate(rows):
        labels[index, [position[name] for name in row]] = 1
    return labels
