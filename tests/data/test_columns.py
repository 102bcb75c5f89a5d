"""Which column is which: by configuration, by the usual names, by what the columns hold."""

from __future__ import annotations

import pytest

from emotion_sweeps.data.columns import ColumnSettings, find_roles, follow_roles
from emotion_sweeps.data.table import Table, lookup
from emotion_sweeps.errors import UserError


def table(*, key: str = "data.train", has_names: bool = True, **columns: list[object]) -> Table:
    names = list(columns) if has_names else [str(index) for index in range(len(columns))]
    values = dict(zip(names, columns.values(), strict=True))
    return Table(key, "a.tsv", values, list(range(len(next(iter(columns.values()))))), has_names)


TEXTS: list[object] = ["a longer text here", "and another one", "a third text, yes", "the fourth"]


@pytest.mark.parametrize("text", ["text", "Tweet", "sentence", "CONTENT", "comment", "utterance", "document"])
@pytest.mark.parametrize("label", ["label", "labels", "Emotion", "emotions", "class", "category", "Sentiment"])
def test_usual_names(text: str, label: str) -> None:
    columns = {"id": ["1", "2", "3", "4"], "author": ["longer than any of the texts in here" * 2] * 4, text: TEXTS}
    roles = find_roles(table(**columns, **{label: ["x", "y", "x", "y"]}), ColumnSettings(), None)
    assert (roles.text, roles.labels, roles.id, roles.binary) == (text, [label], "id", False)
    assert len(roles.assumed) == 2


def test_names_are_preferred_over_ids() -> None:
    columns = {"text": TEXTS, "label": ["0", "1", "0", "1"], "label_text": ["a", "b", "a", "b"]}
    assert find_roles(table(**columns), ColumnSettings(), None).labels == ["label_text"]


def test_positions_without_header() -> None:
    columns = {"a": ["x9", "x8", "x7", "x6"], "b": ["1", "2", "1", "2"], "c": TEXTS}
    roles = find_roles(table(has_names=False, **columns), ColumnSettings(), None)
    assert (roles.text, roles.labels, roles.id) == ("2", ["1"], "0")


def test_only_column_left_is_the_label_without_header() -> None:
    roles = find_roles(table(has_names=False, t=TEXTS, l=["a", "b", "c", "d"]), ColumnSettings(), None)
    assert roles.labels == ["1"]


def test_binary_columns_are_recognised() -> None:
    columns = {"ID": ["1", "0", "1", "0"], "Tweet": TEXTS, "joy": ["1", "0", "0", "1"], "fear": ["0", "0", "1", "1"]}
    roles = find_roles(table(**columns, blank=[""] * 4), ColumnSettings(), None)
    assert (roles.labels, roles.binary, roles.id) == (["joy", "fear"], True, "ID")


def test_configured_label_names_that_are_columns() -> None:
    columns = {"text": TEXTS, "joy": ["NONE"] * 4, "Fear": ["NONE"] * 4, "label": ["a"] * 4}
    roles = find_roles(table(**columns), ColumnSettings(), ["fear", "joy"])
    assert (roles.labels, roles.binary) == (["Fear", "joy"], True)


@pytest.mark.parametrize(
    "settings",
    [
        ColumnSettings("b", "c", None, "a"),
        ColumnSettings(1, 2, None, 0),
        ColumnSettings("1", "2", None, "0"),
        ColumnSettings("B", "C", None, "A"),
    ],
)
def test_configured_columns(settings: ColumnSettings) -> None:
    roles = find_roles(table(a=TEXTS, b=["x"] * 4, c=TEXTS), settings, None)
    assert (roles.text, roles.labels, roles.id, roles.assumed) == ("b", ["c"], "a", [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ColumnSettings(text_column="txet"), r"data.text_column: a.tsv has no column 'txet'; its columns are text"),
        (ColumnSettings(label_column="lable"), r'data.label_column: .* no column \'lable\'.*did you mean "label"'),
        (ColumnSettings(label_column=7), r"data.label_column: a.tsv has no column 7; its columns are text, label"),
        (ColumnSettings(label_columns=["label", "joy"]), r"data.label_columns: a.tsv has no column 'joy'"),
        (ColumnSettings(id_column="no"), r"data.id_column: a.tsv has no column 'no'"),
    ],
)  # fmt: skip
def test_missing_configured_columns(settings: ColumnSettings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_roles(table(text=TEXTS, label=["a"] * 4), settings, None)


def test_no_label_column() -> None:
    with pytest.raises(UserError, match=r"^data.train: a.tsv has no label column .*its columns are text, emoji; give"):
        find_roles(table(text=TEXTS, emoji=["a", "b", "c", "d"]), ColumnSettings(), None)


def test_one_column_hints_at_the_delimiter() -> None:
    with pytest.raises(UserError, match="give data.delimiter"):
        find_roles(table(text=TEXTS), ColumnSettings(), None)


def test_no_text_column() -> None:
    with pytest.raises(UserError, match=r"^data.train: a.tsv has no text column .*give data.text_column"):
        find_roles(table(a=[1, 2], label=[3, 4]), ColumnSettings(), None)


def test_test_part_follows_the_training_part() -> None:
    train = table(id=["1", "2"], Tweet=TEXTS[:2], joy=["1", "0"], fear=["0", "1"])
    roles = find_roles(train, ColumnSettings(), None)
    test = table(key="data.test", id=["3", "4"], Tweet=TEXTS[2:], joy=["NONE"] * 2, fear=["NONE"] * 2)
    followed = follow_roles(test, train, roles, ColumnSettings(), labels_needed=False)
    assert (followed.text, followed.labels, followed.binary, followed.id) == ("Tweet", ["joy", "fear"], True, "id")
    bare = table(key="data.test", id=["3", "4"], Tweet=TEXTS[2:])
    assert follow_roles(bare, train, roles, ColumnSettings(), labels_needed=False).labels == []
    with pytest.raises(UserError, match="data.label_columns: a.tsv has no column 'joy'"):
        follow_roles(bare, train, roles, ColumnSettings())


def test_columns_are_looked_up_by_name_case_and_index() -> None:
    assert lookup(["Text", "1", "text"], "text") == "text"
    assert lookup(["Text", "b"], "text") == "Text"
    assert lookup(["a", "b"], "1") == "b"
    assert lookup(["1", "b"], "1") == "1"
    assert lookup(["TEXT", "Text"], "text") is None
    assert lookup(["a", "b"], -1) is None
    assert lookup(["a", "b"], 2) is None
