"""Files to tables: formats, headers, encodings, malformed rows, and messages for what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emotion_sweeps.data.files import read_tables
from emotion_sweeps.data.table import Table, refuse_many_malformed
from emotion_sweeps.errors import UserError

Write = Callable[[str, str | bytes], Path]


def read(path: Path, **settings: Any) -> Table:
    return read_tables({"data.train": str(path)}, **settings)["data.train"]


def test_tsv_with_header(write: Write) -> None:
    table = read(write("a.tsv", "text\tlabel\nhi there\tjoy\noh no\tfear\n"))
    assert table.columns == {"text": ["hi there", "oh no"], "label": ["joy", "fear"]}
    assert table.lines == [2, 3]
    assert table.assumed == ["delimiter tab", "CSV quoting", "a header line"]


@pytest.mark.parametrize(
    ("content", "with_header"),
    [
        ("Tweet,joy\nhello,1\nbye,0\n", True),  # a usual name
        ("words,mood\nhello,1\nbye,0\n", True),  # a word over numbers
        ("hello you,27\nbye now,3\n", False),  # a number over numbers
        ("hello you,joy\nbye now,anger\nwell,joy\n", False),  # a value that recurs
        ("sentenced,mood\nI am here. Yes!,happy\nnever again,sad\n", True),  # looks like names
        ("It was the best day, ever|happy\nnever again|sad\n", False),
    ],
)
def test_header_is_found_out(write: Write, content: str, with_header: bool) -> None:
    table = read(write("a.csv", content))
    assert table.has_names is with_header
    assert (table.names == ["0", "1"]) is not with_header


def test_header_as_configured(write: Write) -> None:
    path = write("a.csv", "text,label\na,joy\n")
    assert read(path, header=False).columns["0"] == ["text", "a"]
    assert read(write("b.csv", "hello,27\nbye,3\n"), header=True).names == ["hello", "27"]
    assert read(write("c.csv", "what i say,27\nbye,3\n"), wanted=["what i say"]).names == ["what i say", "27"]


def test_second_file_follows_the_first_ones_header(write: Write) -> None:
    first = write("train.tsv", "ID\tTweet\tanger\n1\ta\t0\n2\tb\t1\n")
    second = write("test.tsv", "ID\tTweet\tanger\n3\tc\tNONE\n4\td\tNONE\n")
    tables = read_tables({"data.train": str(first), "data.test": str(second)})
    assert tables["data.test"].columns == {"ID": ["3", "4"], "Tweet": ["c", "d"], "anger": ["NONE", "NONE"]}


def test_bom_crlf_and_semicolons(write: Write) -> None:
    table = read(write("a.csv", b'\xef\xbb\xbftext;label\r\nja, klar;joy\r\n"a;b";fear\r\n'))
    assert table.columns == {"text": ["ja, klar", "a;b"], "label": ["joy", "fear"]}


@pytest.mark.parametrize("delimiter", ["|", "pipe"])
def test_delimiter_as_configured(write: Write, delimiter: str) -> None:
    assert read(write("a.csv", "a,b|joy\nc|joy\n"), delimiter=delimiter).columns["0"] == ["a,b", "c"]


@pytest.mark.parametrize("delimiter", ["\t", "\\t", "tab"])
def test_tab_may_be_written_in_several_ways(write: Write, delimiter: str) -> None:
    assert read(write("a.txt", "a,b\tjoy\nc\tjoy\n"), delimiter=delimiter).columns["0"] == ["a,b", "c"]


def test_jsonl_whatever_the_extension(write: Write) -> None:
    lines = [{"text": "a", "labels": ["joy", "love"]}, {"labels": [], "text": "b", "extra": 1}]
    content = "\n".join(json.dumps(line) for line in lines) + "\n\n"
    for name in ("a.jsonl", "a.json", "a.txt", "a"):
        table = read(write(name, content))
        assert table.columns == {"text": ["a", "b"], "labels": [["joy", "love"], []], "extra": [None, 1]}


def test_json_array(write: Write) -> None:
    table = read(write("a.json", json.dumps([{"text": "a", "label": 1}, {"text": "b", "label": 0}], indent=2)))
    assert table.columns == {"text": ["a", "b"], "label": [1, 0]}


def test_text_that_begins_with_a_bracket_is_not_json(write: Write) -> None:
    assert read(write("a.tsv", "[NAME] is {here}\t2\n{ok} then\t3\n")).columns["0"] == ["[NAME] is {here}", "{ok} then"]


def test_parquet_with_class_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=["joy", "fear"]))}
    )
    path = tmp_path / "a.bin"
    datasets.Dataset.from_dict({"text": ["a", "b"], "labels": [[0, 1], []]}, features=features).to_parquet(path)
    table = read(path)
    assert table.columns == {"text": ["a", "b"], "labels": [[0, 1], []]}
    assert table.class_names == {"labels": ["joy", "fear"]}


def test_malformed_rows_are_counted(write: Write) -> None:
    rows = [f"text {index}\tjoy" for index in range(100)]
    rows[4] = "only one field"
    rows[9] = "three\tfields\there"
    table = read(write("a.tsv", "\n".join(rows)))
    assert len(table) == 98
    assert table.dropped.counts == {"a number of fields other than 2": 2}
    assert table.dropped.first_line == {"a number of fields other than 2": 5}
    refuse_many_malformed(table)


def test_many_malformed_rows_are_an_error(write: Write) -> None:
    rows = [f"text {index}\tjoy" for index in range(100)]
    rows[:6] = ["x"] * 6
    table = read(write("a.tsv", "\n".join(["text\tlabel", *rows])))
    with pytest.raises(UserError, match=r"^data.train: 6 of 100 rows of a.tsv cannot be used: 6 with a number of fields"
                                        r" other than 2 \(first at line 2\).*delimiter tab.*5%"):  # fmt: skip
        refuse_many_malformed(table)


def test_malformed_json_lines_are_counted(write: Write) -> None:
    good = [json.dumps({"text": str(index), "label": "joy"}) for index in range(60)]
    table = read(write("a.jsonl", "\n".join([*good[:5], '{"text": "torn', "[1]", *good[5:]])))
    assert len(table) == 60
    assert table.dropped.counts == {"something else than a JSON object": 2}
    assert table.dropped.first_line == {"something else than a JSON object": 6}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            b"text\tlabel\nok\tjoy\ncaf\xe9\tjoy\n",
            r"^data.train: a.tsv is not UTF-8: byte 0xe9 at line 3, offset 21; .*WINDOWS-1252",
        ),
        ("text\tlabel\nok\tjoy\n".encode("utf-16"), r"^data.train: a.tsv is not UTF-8: .*iconv -f UTF-16"),
    ],
)  # fmt: skip
def test_other_encodings_are_refused(write: Write, raw: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write("a.tsv", raw))


@pytest.mark.parametrize("content", ["", " \n\n"])
@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl"])
def test_empty_file(write: Write, name: str, content: str) -> None:
    with pytest.raises(UserError, match=rf"^data.train: .*{name} is empty"):
        read(write(name, content))


def test_missing_file_names_a_near_one(write: Write, tmp_path: Path) -> None:
    write("train.tsv", "a\tb\n")
    with pytest.raises(UserError, match=r'^data.train: file not found: .*trian.tsv; give .*did you mean "train.tsv"'):
        read(tmp_path / "trian.tsv")


def test_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data.train: .* is a folder; .*data.source=hub"):
        read(tmp_path)


def test_one_file_for_two_splits(write: Write, tmp_path: Path) -> None:
    path = write("a.tsv", "a\tb\n")
    with pytest.raises(UserError, match=r"^data.validation: .*a.tsv is data.train too"):
        read_tables({"data.train": str(path), "data.validation": f"{tmp_path}/../{tmp_path.name}/a.tsv"})


def test_unknown_format(write: Write) -> None:
    with pytest.raises(UserError, match=r'^data.format: unknown format \'jsonll\'.*did you mean "jsonl"'):
        read(write("a", "x"), format="jsonll")


def test_no_parquet(write: Write) -> None:
    with pytest.raises(UserError, match=r"^data.train: .*a.parquet cannot be read as Parquet"):
        read(write("a.parquet", "text\tlabel\n"))


def test_bad_headers(write: Write) -> None:
    with pytest.raises(UserError, match=r"^data.train: the header of a.csv names 'text' twice"):
        read(write("a.csv", "text,text\na,joy\nb,joy\n"))
    with pytest.raises(UserError, match=r"^data.train: the header of b.tsv names 3 columns but most rows have 2"):
        read(write("b.tsv", "id\ttext\tlabel\na\tjoy\nb\tjoy\n"), delimiter="tab")
    with pytest.raises(UserError, match=r"^data.delimiter must not be empty"):
        read(write("c.tsv", "a\tb"), delimiter="")
