"""End to end: files of odd shapes to a corpus, from configuration alone; splits, leaks, subsamples, the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emotion_sweeps.data.corpus import Corpus
from emotion_sweeps.errors import UserError

Write = Callable[[str, str | bytes], Path]
Load = Callable[..., Corpus]

EC_HEADER = "ID\tTweet\tanger\tanticipation\tdisgust\tfear\tjoy"


def names_of(corpus: Corpus, row: int, split: str = "train") -> list[str]:
    labels = corpus.splits[split].labels[row]
    return [name for name, flag in zip(corpus.label_names, labels, strict=True) if flag]


def semeval(size: int, *, start: int = 0, labelled: bool = True) -> str:
    """Lines in the way of SemEval-2018 E-c, with the stray quotes of real tweets."""
    tweets = [
        '"Worry is a down payment" Joyce',
        'plain @user, "quoted" inside',
        '"opens only',
        'ends only"',
        "no quote",
    ]
    rows = [EC_HEADER]
    for index in range(start, start + size):
        flags = [str(int((index + shift) % 3 == 0)) for shift in range(5)] if labelled else ["NONE"] * 5
        rows.append("\t".join([f"2018-En-{index:05}", f"{tweets[index % 5]} {index}", *flags]))
    return "\n".join(rows) + "\n"


def test_semeval_files(load: Load, write: Write) -> None:
    corpus = load(
        train=write("train.txt", semeval(100)),
        validation=write("dev.txt", semeval(40, start=100)),
        test=write("test.txt", semeval(30, start=200, labelled=False)),
    )
    assert corpus.label_names == ["anger", "anticipation", "disgust", "fear", "joy"]
    assert [len(split) for split in corpus.splits.values()] == [100, 40, 30]
    assert corpus.multilabel
    assert corpus.train.texts[0] == '"Worry is a down payment" Joyce 0'
    assert corpus.train.texts[2] == '"opens only 2'
    assert corpus.train.ids[3] == "2018-En-00003"
    assert names_of(corpus, 0) == ["anger", "fear"]
    assert corpus.test is not None and not corpus.test.labelled and not corpus.test.labels.any()
    assert corpus.train.labelled and corpus.validation.labelled
    text = "\n".join(corpus.report.lines())
    assert "quotes as plain characters" in text and "test came without labels" in text
    assert "test" not in corpus.report.label_counts


def test_semeval_with_the_columns_configured(load: Load, write: Write) -> None:
    settings = {"format": "tsv", "header": True, "id_column": "ID", "text_column": "Tweet"}
    corpus = load(
        train=write("train.txt", semeval(100)),
        test=write("test.txt", semeval(30, start=200, labelled=False)),
        label_columns=["joy", "anger"],
        **settings,
    )
    assert corpus.label_names == ["joy", "anger"]
    assert "anticipation" in corpus.train.columns


def test_pipes_without_header_single_label(load: Load, write: Write) -> None:
    rows = [f"text, number {index}; quite long|{['joy', 'anger', 'fear'][index % 3]}" for index in range(60)]
    corpus = load(train=write("a.txt", "\n".join(rows)), test_fraction=0.2, validation_fraction=0.2)
    assert corpus.label_names == ["anger", "fear", "joy"]
    assert not corpus.multilabel
    assert [len(split) for split in corpus.splits.values()] == [36, 12, 12]
    assert sum(split.labels.sum() for split in corpus.splits.values()) == 60
    row = int(corpus.train.ids[0].removeprefix("a.txt:")) - 1
    assert corpus.train.texts[0] == f"text, number {row}; quite long"
    assert names_of(corpus, 0) == [["joy", "anger", "fear"][row % 3]]


def test_semicolons_with_bom_and_crlf(load: Load, write: Write) -> None:
    lines = ["Satz;Emotion"] + [f'"ja; Nummer {index}";{["froh", "bang"][index % 2]}' for index in range(20)]
    raw = b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n"
    corpus = load(train=write("a.csv", raw), validation_fraction=0.25)
    assert corpus.label_names == ["bang", "froh"]
    assert "ja; Nummer 0" in corpus.train.texts + corpus.validation.texts
    assert not corpus.multilabel


def test_jsonl_with_lists_and_further_columns(load: Load, write: Write) -> None:
    rows = [{"id": index, "text": f"t {index}", "labels": [["joy"], ["joy", "love"], []][index % 3], "emoji": "😀"}
            for index in range(30)]  # fmt: skip
    corpus = load(train=write("a.jsonl", "\n".join(map(json.dumps, rows))))
    assert corpus.multilabel and corpus.label_names == ["joy", "love"]
    assert set(corpus.train.columns) == {"emoji"} and corpus.train.columns["emoji"][0] == "😀"
    assert corpus.report.without_label["train"] + corpus.report.without_label["validation"] == 10
    assert all(names_of(corpus, row) == rows[int(corpus.train.ids[row])]["labels"] for row in range(len(corpus.train)))


def test_parquet_with_integer_labels(load: Load, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"content": [f"text {index}" for index in range(40)], "label": [3, 1, 0, 1] * 10})
    frame.to_parquet(tmp_path / "a.parquet")
    corpus = load(train=tmp_path / "a.parquet")
    assert corpus.label_names == ["label_0", "label_1", "label_3"] and not corpus.multilabel
    named = load(train=tmp_path / "a.parquet", labels=["sad", "glad", "mad", "bad"])
    assert named.label_names == ["sad", "glad", "mad", "bad"]
    assert "no training row has mad" in "\n".join(named.report.lines())


def test_true_false_columns_with_renaming(load: Load, write: Write) -> None:
    rows = [f"text {index},{index % 2 == 0},{index % 3 == 0}" for index in range(30)]
    corpus = load(
        train=write("a.csv", "\n".join(["text,e1,e2", *rows])), label_columns=["e1", "e2"], labels=["joy", "love"]
    )
    assert corpus.label_names == ["joy", "love"]
    assert sum(split.labels[:, 0].sum() for split in corpus.splits.values()) == 15


def test_label_names_from_a_file(load: Load, write: Write) -> None:
    labels = write("labels.txt", "sad\nglad\nmad\n")
    rows = [f"text {index}\t{['0,2', '1'][index % 2]}\tid{index}" for index in range(40)]
    corpus = load(train=write("train.tsv", "\n".join(rows)), labels=labels)
    assert corpus.label_names == ["sad", "glad", "mad"]
    row = int(corpus.train.ids[0].removeprefix("id"))
    assert names_of(corpus, 0) == [["sad", "mad"], ["glad"]][row % 2]


def test_empty_texts_are_left_out_and_counted(load: Load, write: Write) -> None:
    rows = [f"text {index}\tjoy" for index in range(50)] + [f"other {index}\tfear" for index in range(50)]
    rows[7] = "   \tjoy"
    corpus = load(train=write("a.tsv", "\n".join(["text\tlabel", *rows])))
    assert sum(map(len, corpus.splits.values())) == 99
    assert corpus.report.dropped == {"a.tsv": {"an empty text": 1}}
    assert "left out of a.tsv: 1 rows with an empty text" in corpus.report.lines()


def test_missing_label_in_single_label_data_is_left_out(load: Load, write: Write) -> None:
    rows = [f"text {index},{['joy', 'fear'][index % 2]}" for index in range(50)] + ["and this,"]
    corpus = load(train=write("a.csv", "\n".join(["text,label", *rows])))
    assert not corpus.multilabel
    assert corpus.report.dropped == {"a.csv": {"no label": 1}}


def test_too_many_empty_texts(load: Load, write: Write) -> None:
    rows = [f"text {index}\tjoy" for index in range(40)] + ["\tfear"] * 10
    with pytest.raises(UserError, match=r"^data.train: 10 of 50 rows .* 10 with an empty text \(first at line 42\)"):
        load(train=write("a.tsv", "\n".join(["text\tlabel", *rows])))


def test_test_file_without_label_column(load: Load, write: Write) -> None:
    train = write("train.csv", "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20)))
    corpus = load(train=train, test=write("test.csv", "text\nwhat is this\nand this\n"))
    assert corpus.test is not None and corpus.test.texts == ["what is this", "and this"]
    assert not corpus.test.labelled and not corpus.multilabel
    with pytest.raises(UserError, match=r"^data.validation: dev.csv has no label column"):
        load(train=train, validation=write("dev.csv", "text\nwhat is this\nand this\n"))


def test_validation_without_any_label_is_an_error(load: Load, write: Write) -> None:
    with pytest.raises(UserError, match=r"^data.validation: no row of dev.txt has a label"):
        load(train=write("train.txt", semeval(50)), validation=write("dev.txt", semeval(20, start=60, labelled=False)))


def single(size: int, start: int = 0) -> str:
    return "text,label\n" + "".join(f"text {i},{'abc'[i % 3]}\n" for i in range(start, start + size))


@pytest.mark.parametrize(
    ("given", "test_fraction", "sizes"),
    [
        ([], 0.0, [81, 9, None]),
        ([], 0.2, [63, 9, 18]),
        (["test"], 0.2, [81, 9, 30]),
        (["validation"], 0.2, [90, 30, None]),
        (["validation", "test"], 0.2, [90, 30, 30]),
    ],
)
def test_only_what_is_not_given_is_cut(
    load: Load, write: Write, given: list[str], test_fraction: float, sizes: list[int | None]
) -> None:
    further = {name: write(f"{name}.csv", single(30, 1000 * position)) for position, name in enumerate(given, 1)}
    corpus = load(train=write("a.csv", single(90)), test_fraction=test_fraction, **further)
    assert [len(corpus.train), len(corpus.validation), corpus.test and len(corpus.test)] == sizes
    cut = any("cut from the training rows by text" in line for line in corpus.report.lines())
    assert cut is ("validation" not in given)


def test_cut_is_by_text_and_by_seed(load: Load, write: Write) -> None:
    path = write("a.csv", single(60) + single(60).split("\n", 1)[1].replace("text", "TEXT"))
    first, again, other = load(train=path), load(train=path), load(train=path, split_seed=1)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert not {t.lower() for t in first.train.texts} & {t.lower() for t in first.validation.texts}
    assert first.report.leaks == []
    assert first.report.duplicates == {"train": 54, "validation": 6}


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.0), (0.6, 0.4)])
def test_impossible_fractions(load: Load, write: Write, validation: float, test: float) -> None:
    with pytest.raises(UserError, match=r"^data.validation_fraction="):
        load(train=write("a.csv", single(10)), validation_fraction=validation, test_fraction=test)


def test_too_few_rows_to_cut_from(load: Load, write: Write) -> None:
    with pytest.raises(UserError, match=r"^data.validation: the validation split is empty; give more rows"):
        load(train=write("a.csv", single(3)), validation_fraction=0.01)


def test_leaks_are_reported_and_dropped_on_demand(load: Load, write: Write) -> None:
    files = {
        "train": write("train.csv", single(50)),
        "validation": write("dev.csv", single(10, 45).replace("text ", "Text  ")),
        "test": write("test.csv", single(10, 49)),
    }
    kept = load(**files)
    assert [(leak.source, leak.target, leak.rows) for leak in kept.report.leaks] == [
        ("train", "validation", 5),
        ("train", "test", 1),
        ("validation", "test", 6),
    ]
    assert 'leak: 5 rows of train have a text of validation ("text 45", "text 46", "text 47")' in kept.report.lines()
    assert len(kept.train) == 50
    dropped = load(**files, drop_leaks=True)
    assert len(dropped.train) == 45 and len(dropped.validation) == 10
    assert dropped.report.leaks == kept.report.leaks
    assert "note: 5 training rows removed for their leaks (data.drop_leaks)" in dropped.report.lines()


def test_subsamples(load: Load, write: Write) -> None:
    files = {"train": write("train.csv", single(100)), "validation": write("d.csv", single(50, 200)),
             "test": write("t.csv", single(50, 300))}  # fmt: skip
    small, large = load(**files, max_samples=10, max_eval_samples=20), load(**files, max_samples=40)
    assert [len(split) for split in small.splits.values()] == [10, 20, 20]
    assert set(small.train.ids) <= set(large.train.ids) and len(large.validation) == 50
    assert small.train.ids != load(**files, max_samples=10, split_seed=1).train.ids
    assert "note: 10 of 100 rows of train used (data.max_samples, seed 0)" in small.report.lines()
    assert small.report.rows == {"train": 10, "validation": 20, "test": 20}
    assert load(**files, max_samples=100).fingerprint == load(**files).fingerprint


def test_multilabel_does_not_depend_on_the_subsample(load: Load, write: Write) -> None:
    rows = [{"text": f"t {index}", "labels": ["joy"]} for index in range(99)] + [
        {"text": "both", "labels": ["joy", "fear"]}
    ]
    path = write("a.jsonl", "\n".join(map(json.dumps, rows)))
    assert all(load(train=path, max_samples=2, split_seed=seed).multilabel for seed in range(3))


@pytest.mark.parametrize("setting", ["max_samples", "max_eval_samples"])
def test_sample_limits_below_one(load: Load, write: Write, setting: str) -> None:
    with pytest.raises(UserError, match=rf"^data.{setting} must be >= 1, got 0"):
        load(train=write("a.csv", single(10)), **{setting: 0})


def test_fingerprint_follows_content(load: Load, write: Write) -> None:
    base = load(train=write("a.csv", single(30)), validation=write("b.csv", single(9, 50)))
    assert len(base.fingerprint) == 64
    assert (
        base.fingerprint == load(train=write("a.csv", single(30)), validation=write("b.csv", single(9, 50))).fingerprint
    )
    changed = [
        (single(30).replace("text 3,", "text three,"), "a"),
        (single(30).replace("text 3,a", "text 3,b"), "a"),
        (single(30).replace(",a", ",z"), "z"),
        (single(30).replace("text 3,a\ntext 4,b", "text 4,b\ntext 3,a"), "a"),
    ]
    seen = {base.fingerprint}
    for text, label in changed:
        validation = write("b.csv", single(9, 50).replace(",a", f",{label}"))
        seen.add(load(train=write("a.csv", text), validation=validation).fingerprint)
    assert len(seen) == 5


def test_report_is_json_and_speaks(load: Load, write: Write) -> None:
    corpus = load(train=write("a.csv", single(30)), name="mine")
    report = json.loads(json.dumps(corpus.report.as_dict()))
    assert report["rows"] == {"train": 27, "validation": 3}
    assert report["label_counts"]["train"] == {"a": 9, "b": 9, "c": 9}
    lines = corpus.report.lines()
    assert lines[0] == "mine: train 27, validation 3 rows, 3 labels"
    assert lines[1].startswith("assumed: a.csv: delimiter comma, CSV quoting, a header line, texts in column 'text'")
    assert lines[-4].split() == ["label", "train", "validation"] or lines[-5].split() == [
        "label",
        "train",
        "validation",
    ]


def test_control_characters_do_not_reach_the_report(load: Load, write: Write) -> None:
    text = "text,label\n" + "".join(f"\x1b[31mred {i},{'ab'[i % 2]}\n" for i in range(20))
    corpus = load(train=write("a.csv", text), validation=write("b.csv", "\n".join(text.split("\n")[:4])))
    lines = "\n".join(corpus.report.lines())
    assert "leak" in lines and "\x1b" not in lines


def test_lone_surrogates_become_harmless(load: Load, write: Write) -> None:
    rows = [json.dumps({"text": f"broken \ud83d here {i}", "label": "ab"[i % 2]}) for i in range(20)]
    corpus = load(train=write("a.jsonl", "\n".join(rows)))
    assert all(text.encode("utf-8") and "\ufffd" in text for text in corpus.train.texts)


def test_ids_that_repeat_are_told(load: Load, write: Write) -> None:
    text = "id,text,label\n" + "".join(f"{i // 2},text {i},{'ab'[i % 2]}\n" for i in range(20))
    corpus = load(train=write("a.csv", text), validation=write("b.csv", text.replace("text ", "other ")))
    assert "note: 10 rows of train repeat an id" in corpus.report.lines()


def test_one_label_is_nothing_to_tell_apart(load: Load, write: Write) -> None:
    with pytest.raises(UserError, match=r"^data.train: every row of a.csv has the same label \(a\)"):
        load(train=write("a.csv", "text,label\n" + "".join(f"text {i},a\n" for i in range(20))))


def test_header_only(load: Load, write: Write) -> None:
    with pytest.raises(UserError, match=r"^data.train: a.tsv has no usable row"):
        load(train=write("a.tsv", "text\tlabel\n"))


def test_unknown_label_names_file_and_line(load: Load, write: Write) -> None:
    path = write("a.csv", "text,label\nfine,joy\nfine too,joi\nwell,fear\n")
    with pytest.raises(UserError, match=r'^data.train: unknown label \'joi\' at a.csv:3; .*did you mean "joy"'):
        load(train=path, labels=["joy", "fear"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "fils"}, r'^data.source: unknown source \'fils\'; .*demo, files, hub; did you mean "files"'),
        ({"source": "files"}, r"^data.train: no file given; data.source=files needs data.train="),
        ({"source": "hub"}, r"^data.path: nothing given"),
        ({"source": "files", "train": "no/where.tsv"}, r"^data.train: file not found: no/where.tsv; give the path"),
    ],
)  # fmt: skip
def test_sources(load: Load, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(**settings)


def test_labels_are_uint8_rows(load: Load, write: Write) -> None:
    corpus = load(train=write("a.csv", single(30)))
    for split in corpus.splits.values():
        assert split.labels.dtype == np.uint8 and split.labels.shape == (len(split), 3)
        assert len(split.ids) == len(split.texts) == len(split)


def test_every_training_text_leaks(load: Load, write: Write) -> None:
    with pytest.raises(UserError, match=r"^data.drop_leaks=true leaves no training row"):
        load(train=write("a.csv", single(12)), validation=write("b.csv", single(30)), drop_leaks=True)


def test_binary_columns_without_header(load: Load, write: Write) -> None:
    rows = [f"id{i}\ta somewhat long text {i}\t{i % 2}\t{int(i % 3 == 0)}" for i in range(30)]
    path = write("a.tsv", "\n".join(rows))
    assert load(train=path).label_names == ["label_0", "label_1"]
    corpus = load(train=path, labels=["joy", "fear"])
    assert corpus.label_names == ["joy", "fear"] and corpus.train.ids[0].startswith("id")
