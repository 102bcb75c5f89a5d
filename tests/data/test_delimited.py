"""Delimited text: quoting that is meant, quotes that are not, delimiters nobody named."""

from __future__ import annotations

import csv
import io
import random

import pytest

from emotion_sweeps.data.delimited import (
    choose_quoting,
    normalise_newlines,
    read_plain,
    read_quoted,
    sniff_delimiter,
)

WORDS = ['so "good"', "a, b; c | d", 'say "no"', "plain", "ünïcödé 😀", "", '"', '""', "two\nlines", "tab\tin it"]


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
@pytest.mark.parametrize("seed", range(5))
def test_quoted_reading_equals_the_csv_module_on_what_it_wrote(delimiter: str, seed: int) -> None:
    draw = random.Random(seed)
    rows = [[draw.choice(WORDS), str(index), draw.choice(WORDS)] for index in range(200)]
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    grid = read_quoted(buffer.getvalue(), delimiter)
    assert grid.rows == rows
    assert grid.stray == 0 and grid.needed > 0
    assert sniff_delimiter(buffer.getvalue(), None) == delimiter


def test_line_numbers_are_those_of_the_file() -> None:
    grid = read_quoted('a,b\n\n"x\ny",c\nlast,d\n', ",")
    assert grid.rows == [["a", "b"], ["x\ny", "c"], ["last", "d"]]
    assert grid.lines == [1, 3, 5]


def test_stray_quotes_swallow_no_row() -> None:
    lines = [f"id{index}\tsome text {index}\t0\t1" for index in range(50)]
    lines[3] = 'id3\t"Worry is a down payment" said Joyce\t0\t1'
    lines[7] = 'id7\t"opened and never closed\t1\t0'
    lines[20] = 'id20\tand here one closes"\t1\t0'
    lines[30] = 'id30\t"\t1\t0'
    text = "\n".join(lines)
    (grid,) = choose_quoting([read_quoted(text, "\t")], [text])
    assert not grid.quoted
    assert grid.rows == [line.split("\t") for line in lines]


def test_quoting_is_kept_where_a_few_strays_stand_among_quoted_rows() -> None:
    lines = [f'"he said ""no {index}"""\t{index % 3}' for index in range(100)]
    lines[10] = '"broken\t1'
    text = "\n".join(lines)
    (grid,) = choose_quoting([read_quoted(text, "\t")], [text])
    assert grid.quoted and len(grid.rows) == 100
    assert grid.rows[0] == ['he said "no 0"', "0"]
    assert grid.rows[10] == ['"broken', "1"]


def test_one_decision_for_all_files_of_a_data_set() -> None:
    strays = "\n".join(f'"a" b {index}\t0' for index in range(20))
    whole = 'a\t0\n"all of it quoted"\t1\nb\t0'
    grids = choose_quoting([read_quoted(strays, "\t"), read_quoted(whole, "\t")], [strays, whole])
    assert [grid.quoted for grid in grids] == [False, False]
    assert grids[1].rows[1] == ['"all of it quoted"', "1"]


def test_comma_files_stay_quoted_in_spite_of_a_stray() -> None:
    text = "\n".join(['"yes, sir",joy'] * 30 + ['"he said "hi", ok",joy'] + ['"no, sir",joy'] * 30)
    (grid,) = choose_quoting([read_quoted(text, ",")], [text])
    assert grid.quoted
    assert sum(len(row) == 2 for row in grid.rows) == 60


def test_blanks_before_a_quote_belong_to_the_delimiter() -> None:
    assert read_quoted('"x, y", "joy"\na, b', ",").rows[0] == ["x, y", "joy"]


@pytest.mark.parametrize(
    ("text", "preferred", "expected"),
    [
        ("text\tlabel\nI said; go, now | ok\tjoy\n", None, "\t"),
        ("it was good, really|joy\nno, no, no|anger\nok|joy\n", None, "|"),
        ("text;label\nit was, well, good;joy\nno;anger\n", None, ";"),
        ("text,labels\nall fine,joy;love\nnot,anger;fear\n", ",", ","),
        ("text,labels\nall fine,joy;love\nnot,anger;fear\n", None, ","),
        ("a;1,2\nb;2,3\n", ",", ","),  # both are even: the extension decides
        ("just one column\nwith a comma, here\nand none\nat all\n", None, ""),
    ],
)
def test_delimiter_is_found_out(text: str, preferred: str | None, expected: str) -> None:
    assert sniff_delimiter(text, preferred) == expected


def test_long_delimiters_and_single_columns() -> None:
    assert read_plain("a ||| b\nc ||| d", " ||| ").rows == [["a", "b"], ["c", "d"]]
    assert read_quoted('"a ||| b" ||| c', " ||| ").rows == [["a ||| b", "c"]]
    assert read_quoted('one, "two"\n"three"', "").rows == [['one, "two"'], ["three"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\r\n", "a\nb\n"),
        ("a\rb", "a\nb"),
        ("a\rb\nc", "a b\nc"),
        ("a\u2028b\x0bc\n", "a\u2028b\x0bc\n"),
    ],
)
def test_newlines(text: str, expected: str) -> None:
    assert normalise_newlines(text) == expected
