"""Real corpora beside the checkout (`../shared/data`), read from configuration alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_sweeps.data.corpus import Corpus
from emotion_sweeps.errors import UserError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
Load = Callable[..., Corpus]
needs_goemotions = pytest.mark.skipif(not (DATA / "goemotions").is_dir(), reason="no ../shared/data/goemotions")
needs_text2emoji = pytest.mark.skipif(not (DATA / "text2emoji").is_dir(), reason="no ../shared/data/text2emoji")


@needs_goemotions
def test_goemotions(load: Load) -> None:
    folder = DATA / "goemotions"
    corpus = load(train=folder / "train.tsv", validation=folder / "dev.tsv", labels=folder / "labels.txt")
    assert (len(corpus.train), len(corpus.validation), corpus.test) == (43_410, 5_426, None)
    assert len(corpus.label_names) == 28 and corpus.label_names[27] == "neutral"
    assert corpus.train.labels.sum() / len(corpus.train) == pytest.approx(1.177, abs=0.001)
    assert corpus.multilabel
    assert corpus.train.texts[123] == 'Three words, no subtlety. "Dude. Stop. Seriously."'
    assert not any('""' in text and text.startswith('"') for text in corpus.train.texts)
    assert corpus.train.ids[:2] == ["eebbqej", "ed00q6i"]
    assert corpus.report.dropped == {}
    assert corpus.report.label_counts["train"]["grief"] == 77
    assert corpus.report.assumed[0].startswith("train.tsv: delimiter tab, CSV quoting, no header line, texts in column")


@needs_goemotions
def test_goemotions_without_names_or_validation(load: Load) -> None:
    corpus = load(train=DATA / "goemotions" / "dev.tsv", validation_fraction=0.2, test_fraction=0.2)
    assert corpus.label_names == [f"label_{index}" for index in range(28)]
    assert sum(map(len, corpus.splits.values())) == 5_426
    assert corpus.report.leaks == []
    for split in (corpus.validation, corpus.test):
        assert split is not None and split.labels.any(axis=0).all()


@needs_text2emoji
def test_text2emoji_has_no_labels_and_says_so(load: Load) -> None:
    path = DATA / "text2emoji" / "text2emoji_dev.csv"
    with pytest.raises(
        UserError, match=r"^data.train: text2emoji_dev.csv has no label column .*columns are text, emoji"
    ):
        load(train=path)
    with pytest.raises(
        UserError, match=r"^data.train: column 'emoji' of .* different values in 2271 rows, so they are no"
    ):
        load(train=path, label_column="emoji")


@needs_text2emoji
def test_text2emoji_is_read_whole() -> None:
    from emotion_sweeps.data.files import read_tables
    from emotion_sweeps.data.splits import count_duplicates

    table = read_tables({"data.train": str(DATA / "text2emoji" / "text2emoji_dev.csv")})["data.train"]
    assert len(table) == 2_271 and table.names == ["text", "emoji"]
    assert "A cozy, rainy day indoors" in table.columns["text"]
    assert count_duplicates([str(text) for text in table.columns["text"]]) == 7  # letter case and blanks apart
