"""Hub data sets, by local folders of the same layout (no network), and the messages where there is no hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from emotion_sweeps.data.corpus import Corpus
from emotion_sweeps.data.hub import read_hub
from emotion_sweeps.errors import UserError

Load = Callable[..., Corpus]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's cache is read or written."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def goemotions_like(tmp_path: Path) -> Path:
    """A folder laid out as `go_emotions`, simplified: Parquet with a list of ClassLabels, and ids."""
    names = ["admiration", "amusement", "neutral"]
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "labels": datasets.List(datasets.ClassLabel(names=names)),
            "id": datasets.Value("string"),
        }
    )
    folder = tmp_path / "go_emotions"
    for split, size in (("train", 30), ("validation", 9), ("test", 12)):
        rows = {
            "text": [f"{split} text {index}" for index in range(size)],
            "labels": [[[0, 1], [2], [0]][index % 3] for index in range(size)],
            "id": [f"{split}{index}" for index in range(size)],
        }
        data = datasets.Dataset.from_dict(rows, features=features)
        data.to_parquet(folder / "simplified" / f"{split}-00000-of-00001.parquet")
    return folder


def test_lists_of_class_labels(load: Load, goemotions_like: Path) -> None:
    corpus = load(source="hub", path=goemotions_like)
    assert corpus.label_names == ["admiration", "amusement", "neutral"]
    assert corpus.multilabel
    assert [len(split) for split in corpus.splits.values()] == [30, 9, 12]
    assert corpus.train.labels[0].tolist() == [1, 1, 0]
    assert corpus.train.ids[0] == "train0"


def test_split_names_can_be_given(load: Load, goemotions_like: Path) -> None:
    corpus = load(source="hub", path=goemotions_like, train="test", validation="validation", test="train")
    assert [len(split) for split in corpus.splits.values()] == [12, 9, 30]
    with pytest.raises(UserError, match=r'^data.train: .*go_emotions has no split \'trian\'; its splits are.*"train"'):
        load(source="hub", path=goemotions_like, train="trian")


def test_single_class_labels(load: Load, tmp_path: Path) -> None:
    names = ["sadness", "joy", "love", "anger", "fear", "surprise"]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    for split in ("train", "test"):
        rows = {"text": [f"{split} {index}" for index in range(60)], "label": [index % 6 for index in range(60)]}
        path = tmp_path / "emotion" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    corpus = load(source="hub", path=tmp_path / "emotion")
    assert corpus.label_names == names and not corpus.multilabel
    assert [len(split) for split in corpus.splits.values()] == [54, 6, 60]
    assert corpus.train.ids[0].startswith("emotion[train]:")
    renamed = load(source="hub", path=tmp_path / "emotion", labels=list("abcdef"))
    assert renamed.label_names == list("abcdef")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_folders_of_text_files(load: Load, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = [{"text": f"well, text {index}", "label": ["joy", "fear"][index % 2]} for index in range(40)]
    csv = "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in rows)
    (folder / f"train.{kind}").write_text(csv if kind == "csv" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    corpus = load(source="hub", path=folder)
    assert corpus.label_names == ["fear", "joy"] and not corpus.multilabel
    assert len(corpus.train) + len(corpus.validation) == 40 and corpus.test is None


def test_unlabelled_test_part(load: Load, tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    for split, labels in (("train", [0, 1] * 10), ("test", [-1] * 20)):
        rows = {"text": [f"{split} {index}" for index in range(20)], "label": labels}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "d" / f"{split}.parquet")
    corpus = load(source="hub", path=tmp_path / "d")
    assert corpus.test is not None and not corpus.test.labelled and not corpus.multilabel


def test_usual_split_names(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "d" / f"{split}.jsonl").write_text('{"text": "a", "label": "x"}\n', encoding="utf-8")
    tables = read_hub(str(tmp_path / "d"), config_name=None, revision=None, splits={})
    assert list(tables) == ["data.train", "data.validation", "data.test"]


def test_no_hub_is_one_line(load: Load) -> None:
    with pytest.raises(UserError, match=r"^data.path: the hub cannot be reached for dair-ai/emotion .*data=demo$"):
        load(source="hub", path="dair-ai/emotion", config_name="split")


def test_loading_scripts_are_refused_in_one_line(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "sem_eval"
    folder.mkdir()
    (folder / "sem_eval.py").write_text("raise SystemError\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"^data.path: .*sem_eval needs a loading script, .*data.revision=refs/convert/par"
    ):
        load(source="hub", path=folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"^data.path: .* cannot be read"),
        ({"train.csv": b"text,label\ncaf\xe9,a\n"}, r"^data.path: .* cannot be read: .*utf-8"),
        ({"one.jsonl": b'{"text": "a"}\n', "README.md": b""}, r"^data.train: .* has no label column"),
    ],
)
def test_unreadable_folders(load: Load, tmp_path: Path, content: dict[str, bytes], message: str) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for name, raw in content.items():
        (folder / name).write_bytes(raw)
    with pytest.raises(UserError, match=message):
        load(source="hub", path=folder)


@pytest.mark.parametrize("path", ["/no/such/folder", "./none", "~/none-of-that"])
def test_missing_folder(load: Load, path: str) -> None:
    with pytest.raises(UserError, match=r"^data.path: .* is no folder; give a folder of data files, or a hub id"):
        load(source="hub", path=path)


def test_unknown_config_name(load: Load, goemotions_like: Path) -> None:
    with pytest.raises(UserError, match=r"^data.path: .*cannot be read: .*'no-such'.*check data.config_name"):
        load(source="hub", path=goemotions_like, config_name="no-such")
