"""From the rows that were read to the final corpus: missing splits cut, leaks, subsamples, counts, fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from emotion_sweeps.data.corpus import (
    Corpus,
    CorpusReport,
    LeakCount,
    Split,
    count_labels,
    fingerprint,
    is_multilabel,
)
from emotion_sweeps.data.splits import Leak, count_duplicates, cut_by_text, find_leaks, subsample
from emotion_sweeps.data.table import list_names
from emotion_sweeps.errors import UserError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Rows:
    """What was read: usable rows of every given split, and what there is to tell."""

    label_names: list[str]
    splits: dict[str, Split]
    dropped: dict[str, dict[str, int]]
    assumed: list[str]
    notes: list[str]


def cut_missing(rows: Rows, validation_fraction: float, test_fraction: float, seed: int) -> Rows:
    """The splits as given; what is not given is cut from the training part, never parting equal texts.

    A test part is cut only together with a validation part, and only where `test_fraction` asks for one.
    """
    if "validation" in rows.splits:
        return rows
    shares = {"validation": validation_fraction}
    if "test" not in rows.splits and test_fraction > 0:
        shares["test"] = test_fraction
    rest = 1.0 - sum(shares.values())
    if validation_fraction <= 0 or rest <= 0:
        raise UserError(
            f"data.validation_fraction={validation_fraction}, data.test_fraction={test_fraction}: without"
            " data.validation, a part is cut from the training rows, so the first must be > 0 and they must leave some;"
            " for example 0.1 and 0.1"
        )
    train = rows.splits["train"]
    parts = cut_by_text(train.texts, train.labels, [rest, *shares.values()], seed)
    cut = {name: train.keep(part) for name, part in zip(["train", *shares], parts, strict=True)}
    shown = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    note = f"note: cut from the training rows by text, seed {seed}: {shown}"
    merged = {**rows.splits, **cut}
    ordered = {name: merged[name] for name in SPLITS if name in merged}
    return replace(rows, splits=ordered, notes=[*rows.notes, note])


def assemble(name: str, rows: Rows, *, limits: Mapping[str, int | None], seed: int, drop_leaks: bool) -> Corpus:
    """Leaks found (and dropped on demand), subsamples drawn, everything counted.

    Whether the corpus is multi-label is decided on all rows, so that a small subsample cannot change the task.

    Args:
        limits: split -> rows at most (None: all).
    """
    _refuse_empty_splits(rows.splits)
    leaks = find_leaks({split: each.texts for split, each in rows.splits.items()})
    splits, notes = _drop_leaks(rows.splits, leaks) if drop_leaks else (rows.splits, [])
    splits, limit_notes = _subsample(splits, limits, seed)
    report = _report(name, rows, splits, leaks, notes + limit_notes)
    return Corpus(
        name=name,
        label_names=rows.label_names,
        multilabel=is_multilabel(rows.splits),
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        fingerprint=fingerprint(rows.label_names, splits),
        report=report,
    )


def _refuse_empty_splits(splits: Mapping[str, Split]) -> None:
    for name, split in splits.items():
        if not len(split):
            raise UserError(
                f"data.{name}: the {name} split is empty; give more rows, a file for it, or a larger"
                f" data.{'validation' if name == 'train' else name}_fraction"
            )


def _drop_leaks(splits: dict[str, Split], leaks: Sequence[Leak]) -> tuple[dict[str, Split], list[str]]:
    """The training part without the rows whose text stands in another split."""
    leaked = {row for leak in leaks if leak.source == "train" for row in leak.rows}
    if not leaked:
        return splits, []
    train = splits["train"].keep([row for row in range(len(splits["train"])) if row not in leaked])
    if not len(train):
        raise UserError(
            "data.drop_leaks=true leaves no training row: every training text stands in another split; check the files"
        )
    return {**splits, "train": train}, [f"note: {len(leaked)} training rows removed for their leaks (data.drop_leaks)"]


def _subsample(
    splits: dict[str, Split], limits: Mapping[str, int | None], seed: int
) -> tuple[dict[str, Split], list[str]]:
    kept: dict[str, Split] = {}
    notes: list[str] = []
    for name, split in splits.items():
        rows = subsample(split.texts, limits[name], seed)
        kept[name] = split if len(rows) == len(split) else split.keep(rows)
        if len(rows) < len(split):
            setting = "max_samples" if name == "train" else "max_eval_samples"
            notes.append(f"note: {len(rows):,} of {len(split):,} rows of {name} used (data.{setting}, seed {seed})")
    return kept, notes


def _report(
    name: str, rows: Rows, splits: dict[str, Split], leaks: Sequence[Leak], notes: Sequence[str]
) -> CorpusReport:
    """Counts of the final splits; leaks are those of all rows, before any was dropped or left out of a subsample."""
    counts = {split: count_labels(rows.label_names, each) for split, each in splits.items() if each.labelled}
    absent = [label for label, count in counts["train"].items() if not count]
    further = [f"note: no training row has {list_names(absent)}"] if absent else []
    return CorpusReport(
        name=name,
        label_names=rows.label_names,
        rows={split: len(each) for split, each in splits.items()},
        label_counts=counts,
        without_label={split: int((splits[split].labels.sum(axis=1) == 0).sum()) for split in counts},
        duplicates={split: count_duplicates(each.texts) for split, each in splits.items()},
        leaks=[LeakCount(leak.source, leak.target, len(leak.rows), leak.examples) for leak in leaks],
        dropped=rows.dropped,
        assumed=rows.assumed,
        notes=[*rows.notes, *notes, *further],
    )
