"""Any delimiter, header or none, any way to write labels: the same corpus comes back, from the path alone."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from emotion_sweeps.data.corpus import Corpus

NAMES = ["anger", "fear", "joy", "quiet joy", "sadness"]
OPENINGS = [
    "well",
    "So, no",
    'she said "hm"',
    '"no" they said',
    "ok :) | then",
    "it's; fine",
    "😀 yes",
    "[NAME] and",
    "1,000",
]

LabelWriter = Callable[[list[int]], list[str]]
FORMS: dict[str, LabelWriter] = {
    "names": lambda ids: [", ".join(NAMES[i] for i in ids)],
    "names with pipes": lambda ids: ["|".join(NAMES[i] for i in ids)],
    "ids": lambda ids: [",".join(map(str, ids))],
    "json": lambda ids: [json.dumps([NAMES[i] for i in ids])],
    "python": lambda ids: [str([NAMES[i] for i in ids])],
    "flags": lambda ids: [str(int(i in ids)) for i in range(len(NAMES))],
}


def example(seed: int, single: bool) -> list[tuple[str, list[int]]]:
    """Sixty rows; every label comes up, and rows without one only where a row may have several."""
    draw = random.Random(seed)
    rows = []
    for index in range(60):
        ids = [index % 5] if single or index % 4 else sorted(draw.sample(range(5), draw.choice([0, 2, 3])))
        words = [draw.choice(OPENINGS) for _ in range(draw.randint(1, 4))]
        rows.append((f"{' '.join(words)} {index}", ids))
    return rows


@pytest.mark.parametrize("single", [True, False], ids=["single", "multi"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("delimiter", "extension"), [("\t", "tsv"), (",", "csv"), (";", "csv"), ("|", "txt"), ("\t", "txt")]
)
@pytest.mark.parametrize("header", [True, False], ids=["header", "bare"])
def test_round_trip(
    load: Callable[..., Corpus], tmp_path: Path, header: bool, delimiter: str, extension: str, form: str, single: bool
) -> None:
    rows = example(len(form) * 4 + 2 * header + single, single)
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n")
    if header:
        writer.writerow(["id", "text", *(NAMES if form == "flags" else ["emotions"])])
    writer.writerows([f"row-{index}", text, *FORMS[form](ids)] for index, (text, ids) in enumerate(rows))
    path = tmp_path / f"data.{extension}"
    path.write_text(buffer.getvalue(), encoding="utf-8")
    settings = {"labels": NAMES} if form == "ids" or (form == "flags" and not header) else {}
    corpus = load(train=str(path), validation_fraction=0.2, **settings)
    assert corpus.label_names == NAMES
    assert corpus.multilabel is not single
    assert corpus.report.dropped == {}
    found = {
        identity: (text, [i for i, flag in enumerate(row) if flag])
        for split in corpus.splits.values()
        for identity, text, row in zip(split.ids, split.texts, split.labels, strict=True)
    }
    assert found == {f"row-{index}": row for index, row in enumerate(rows)}


@pytest.mark.parametrize(("single", "form"), list(product([True, False], ["list", "text", "ids", "mapping", "flags"])))
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_round_trip_of_typed_files(
    load: Callable[..., Corpus], tmp_path: Path, kind: str, single: bool, form: str
) -> None:
    pandas = pytest.importorskip("pandas")
    rows = example(7, single)
    records = []
    for text, ids in rows:
        labels: dict[str, object] = {
            "list": {"labels": [NAMES[i] for i in ids]},
            "text": {"label": ";".join(NAMES[i] for i in ids)},
            "ids": {"label": ids[0] if single else ids},
            "mapping": {"label": {name: int(i in ids) for i, name in enumerate(NAMES)}},
            "flags": {name: i in ids for i, name in enumerate(NAMES)},
        }[form]  # type: ignore[assignment]
        records.append({"sentence": text, **labels})
    path = tmp_path / f"data.{kind}"
    if kind == "parquet":
        pandas.DataFrame(records).to_parquet(path)
    else:
        content = json.dumps(records) if kind == "json" else "\n".join(map(json.dumps, records))
        path.write_text(content, encoding="utf-8")
    corpus = load(train=str(path), labels=NAMES if form == "ids" else None)
    assert corpus.label_names == NAMES
    assert corpus.multilabel is not single
    assert corpus.report.dropped == {}
    found = {
        text: [i for i, flag in enumerate(row) if flag]
        for split in corpus.splits.values()
        for text, row in zip(split.texts, split.labels, strict=True)
    }
    assert found == dict(rows)
