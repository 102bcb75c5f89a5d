"""Label cells in all their forms, and the vocabulary they are read under."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from emotion_sweeps.data.columns import Roles
from emotion_sweeps.data.labels import Decoded, decode_cells, decode_columns, find_separator, read_label_names
from emotion_sweeps.data.table import Table
from emotion_sweeps.errors import UserError


def decode(
    *columns: Sequence[object],
    names: list[str] | None = None,
    separator: str | None = None,
    class_names: list[str] | None = None,
) -> Decoded:
    """Decode one label column of as many tables as are given."""
    keys = ("data.train", "data.validation", "data.test")
    tables = [
        Table(key, f"{key[5:]}.tsv", {"label": list(values)}, list(range(1, len(values) + 1)),
              class_names={"label": class_names} if class_names else {})
        for key, values in zip(keys, columns, strict=False)
    ]  # fmt: skip
    roles = Roles("text", ["label"], False, None, [])
    return decode_cells([(table, roles) for table in tables], names, separator)


def named(decoded: Decoded, table: int = 0) -> list[list[str] | None]:
    """Rows as lists of label names, None where a row says nothing."""
    rows = zip(decoded.matrices[table], decoded.missing[table], strict=True)
    return [
        None if gone else [n for n, flag in zip(decoded.label_names, row, strict=True) if flag] for row, gone in rows
    ]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["joy", "anger", " joy "], [["joy"], ["anger"], ["joy"]]),
        (["joy,anger", "joy", "anger , fear"], [["anger", "joy"], ["joy"], ["anger", "fear"]]),
        (["joy;anger", "joy"], [["anger", "joy"], ["joy"]]),
        (["joy|anger", "", "joy"], [["anger", "joy"], [], ["joy"]]),
        (["joy anger", "joy", "anger"], [["anger", "joy"], ["joy"], ["anger"]]),
        (["very happy", "very sad", "happy"], [["very happy"], ["very sad"], ["happy"]]),
        ([["joy", "anger"], [], ["joy"]], [["anger", "joy"], [], ["joy"]]),
        (['["joy", "anger"]', "[]", '["joy"]'], [["anger", "joy"], [], ["joy"]]),
        (["['joy', 'very sad']", "[]", "['joy']"], [["joy", "very sad"], [], ["joy"]]),
        (["[joy, very sad]", "[]", "[joy]"], [["joy", "very sad"], [], ["joy"]]),
        ([{"joy": 1, "fear": 0}, {"joy": 0, "fear": 1}], [["joy"], ["fear"]]),
        (["joy", None, "fear"], [["joy"], None, ["fear"]]),
        (["joy", "", "fear"], [["joy"], None, ["fear"]]),  # in single-label data an empty cell says nothing
    ],
)
def test_names(cells: list[object], expected: list[list[str] | None]) -> None:
    decoded = decode(cells)
    assert named(decoded) == expected
    assert decoded.label_names == sorted(decoded.label_names)


@pytest.mark.parametrize(
    "cells",
    [
        ["2,3", "0", "", "3"],
        ["2;3", "0", "", "3"],
        ["2 3", "0", "", "3"],
        [[2, 3], [0], [], [3]],
        ["[2 3]", "[0]", "[]", "[3]"],
        ["[2, 3]", "[0]", "[]", "[3]"],
        [[2.0, 3.0], [0.0], [], [3.0]],
        [np.array([2, 3]).tolist(), (0,), (), (3,)],
    ],
)
@pytest.mark.parametrize("names", [None, ["a", "b", "c", "d"]])
def test_ids(cells: list[object], names: list[str] | None) -> None:
    decoded = decode(cells, names=names)
    assert decoded.label_names == (names or ["label_0", "label_2", "label_3"])
    columns = [2, 3, 0] if names else [1, 2, 0]
    first, second, third = columns
    expected = np.zeros((4, len(decoded.label_names)), dtype=np.uint8)
    expected[0, [first, second]] = expected[1, third] = expected[3, second] = 1
    np.testing.assert_array_equal(decoded.matrices[0], expected)
    assert decoded.matrices[0].dtype == np.uint8


def test_ids_of_single_label_data_sort_as_numbers() -> None:
    decoded = decode([0, 10, 2.0, "3", True, -1])
    assert decoded.label_names == ["label_0", "label_1", "label_2", "label_3", "label_10"]
    assert named(decoded) == [["label_0"], ["label_10"], ["label_2"], ["label_3"], ["label_1"], None]


def test_class_names_of_the_data_set_are_used_and_configured_ones_win() -> None:
    assert decode([0, 1], class_names=["sad", "glad"]).label_names == ["sad", "glad"]
    assert named(decode([0, 1], class_names=["sad", "glad"], names=["s", "g"])) == [["s"], ["g"]]


def test_configured_names_fix_the_order_and_case() -> None:
    decoded = decode(["JOY", "Fear,joy"], names=["joy", "anger", "fear"])
    assert named(decoded) == [["joy"], ["joy", "fear"]]


def test_label_with_a_comma_stays_whole_when_configured() -> None:
    decoded = decode(["anger, mild", "joy"], names=["anger, mild", "joy"])
    assert named(decoded) == [["anger, mild"], ["joy"]]
    assert decoded.notes == []


def test_separator_as_configured() -> None:
    assert named(decode(["joy/fear", "joy", ""], separator="/")) == [["fear", "joy"], ["joy"], []]
    assert named(decode(["joy;fear", "joy"], separator="semicolon")) == [["fear", "joy"], ["joy"]]


def test_vocabulary_is_that_of_all_splits() -> None:
    decoded = decode(["joy"], ["fear"], ["anger"])
    assert decoded.label_names == ["anger", "fear", "joy"]
    assert [matrix.argmax() for matrix in decoded.matrices] == [2, 1, 0]


def test_separator_is_told() -> None:
    assert decode(["a,b", "a"]).notes == ["labels separated by ','"]
    assert find_separator({"very sad", "happy"}, None) is None
    assert find_separator({"very sad", "sad"}, ["very sad", "very", "sad"]) is None


def test_labels_that_differ_in_case_are_told() -> None:
    assert "'Joy' and 'joy' differ in case" in decode(["Joy", "joy", "fear"]).notes[0]


@pytest.mark.parametrize(
    ("cells", "names", "message"),
    [
        (["joy", "joi"], ["joy", "fear"], r'^data.train: unknown label \'joi\' at train.tsv:2; the labels .*"joy"'),
        (["joy,fea"], ["joy", "fear"], r'unknown label \'fea\' at train.tsv:1.*did you mean "fear"'),
        ([0, 2], ["joy", "fear"], r"^data.train: unknown label id 2 at train.tsv:2; ids count from 0 to 1"),
    ],
)  # fmt: skip
def test_unknown_labels(cells: list[object], names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        decode(cells, names=names)


def test_unknown_label_in_the_second_file_names_that_file() -> None:
    with pytest.raises(UserError, match=r"^data.validation: unknown label 'hate' at validation.tsv:1"):
        decode(["joy"], ["hate"], names=["joy", "fear"])


def test_free_text_is_no_label_column() -> None:
    with pytest.raises(UserError, match=r"^data.train: column 'label' of train.tsv holds 100 different values in 100"):
        decode([f"text number {index}" for index in range(100)])


def columns_table(**columns: list[object]) -> tuple[Table, Roles]:
    size = len(next(iter(columns.values())))
    return Table("data.train", "a.tsv", columns, list(range(2, size + 2))), Roles("text", list(columns), True, None, [])


@pytest.mark.parametrize(
    "values",
    [["0", "1"], [0, 1], [False, True], [0.0, 1.0], ["0.0", "1.0"], ["false", "True"], ["FALSE", " 1 "]],
)
def test_binary_columns(values: list[object]) -> None:
    decoded = decode_columns([columns_table(joy=values, fear=list(reversed(values)))], None)
    assert decoded.label_names == ["joy", "fear"]
    np.testing.assert_array_equal(decoded.matrices[0], [[0, 1], [1, 0]])
    assert not decoded.missing[0].any()


def test_binary_columns_without_information() -> None:
    decoded = decode_columns([columns_table(joy=["NONE", "1", None], fear=["NONE", "0", "0"])], None)
    np.testing.assert_array_equal(decoded.missing[0], [True, False, True])
    np.testing.assert_array_equal(decoded.matrices[0], [[0, 0], [1, 0], [0, 0]])


def test_binary_columns_can_be_renamed() -> None:
    assert decode_columns([columns_table(l1=["1"], l2=["0"])], ["joy", "fear"]).label_names == ["joy", "fear"]


def test_other_values_in_binary_columns() -> None:
    with pytest.raises(UserError, match=r"^data.train: label column 'fear' holds '0.7' at a.tsv:3; it must be 0 or 1"):
        decode_columns([columns_table(joy=["1", "0"], fear=["0", "0.7"])], None)


def test_label_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffjoy\r\nvery sad\r\n".encode())
    assert read_label_names(str(path)) == ["joy", "very sad"]
    assert read_label_names(["a", 1]) == ["a", "1"]  # type: ignore[list-item]
    assert read_label_names(None) is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("nowhere.txt", r"^data.labels: file not found: nowhere.txt; give a list such as \[anger,joy\]"),
        (["a", "b", "a"], r"^data.labels: 'a' comes up twice"),
        (["a", ""], r"^data.labels: empty label name"),
    ],
)
def test_bad_label_lists(labels: list[str] | str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_label_names(labels)
