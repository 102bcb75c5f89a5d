from __future__ import annotations

import csv
import io

import pytest

from emotion_sweeps.report.texts import MAX_CHARS, markdown, plain, spreadsheet

HOSTILE = [
    "a|b",
    "`rm`",
    "<script>alert(1)</script>",
    "![x](http://evil.example/p.png)",
    "[click](javascript:alert(1))",
    "line\nbreak\r\n| --- |",
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "**bold** _em_ ~~gone~~ # head",
    "&lt;b&gt; &amp;",
    "back\\slash | \\| pipe",
    "https://evil.example www.evil.example",
    "\x1b[31mred\x1b[0m\x07",
    "right\u202eto left\u200b",
    "😀 👩\u200d👧 ❤\ufe0f",
    "\ud800",
]


def test_names_of_trials_stay_readable() -> None:
    assert markdown("exp3_r24_a64_d10_linear_augmented") == "exp3_r24_a64_d10_linear_augmented"
    assert markdown("r=24, alpha=64, dropout=0.10") == "r=24, alpha=64, dropout=0.10"
    assert plain("👩\u200d👧 ❤\ufe0f") == "👩\u200d👧 ❤\ufe0f"


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_hostile_text_as_it_is(text: str) -> None:
    """A CommonMark renderer (with GitHub's tables, links and strike-through) gives the text back and no element."""
    markdown_it = pytest.importorskip("markdown_it", reason="rendering is checked with markdown-it-py")
    render = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).parse
    tokens = render(f"| head | second |\n| --- | --- |\n| {markdown(text)} | end |\n")
    inline = [token for token in tokens if token.type == "inline"]
    assert [token.content for token in inline][:2] == ["head", "second"] and inline[-1].content == "end"
    assert len(inline) == 4
    children = inline[2].children
    assert children is not None and {child.type for child in children} <= {"text", "text_special"}
    assert "".join(child.content for child in children).strip() == plain(text).strip()


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_hostile_text_is_html_or_a_bare_link_or_a_control_character(text: str) -> None:
    safe = markdown(text)
    assert "<" not in safe and "://" not in safe
    assert "www." not in safe and "\n" not in safe and "\x1b" not in safe and "\u202e" not in safe
    safe.encode("utf-8")  # lone surrogates are gone


@pytest.mark.parametrize("text", HOSTILE)
def test_a_spreadsheet_reads_no_formula(text: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerow([spreadsheet(text), "end"])
    ((cell, end),) = list(csv.reader(io.StringIO(out.getvalue())))
    assert end == "end" and not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_numbers_stay_numbers_in_a_spreadsheet() -> None:
    assert spreadsheet(-0.5) == -0.5 and spreadsheet(None) == "" and spreadsheet(3) == 3


def test_long_text_is_cut() -> None:
    assert len(plain("x" * 5000)) == MAX_CHARS and plain("x" * 5000).endswith("...")
    assert plain("x" * MAX_CHARS) == "x" * MAX_CHARS
