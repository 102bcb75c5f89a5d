"""A pad token in every case, on the side that was asked for, and no trace of where it was loaded from."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import TokenizersBackend

from emotion_sweeps.errors import UserError
from emotion_sweeps.models.sources import ModelSource, resolve_source
from emotion_sweeps.models.tokenizers import ensure_pad_token, load_tokenizer
from emotion_sweeps.models.twins import TWINS, twin_folder


@pytest.fixture
def stripped(tmp_path: Path) -> Callable[[str, set[str]], ModelSource]:
    """A twin's tokenizer whose config lacks some named tokens, as a source."""

    def strip(name: str, tokens: set[str]) -> ModelSource:
        folder = tmp_path / name
        shutil.copytree(twin_folder(name), folder)
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config.update({token: None for token in tokens}, tokenizer_class="TokenizersBackend")
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return resolve_source(path=str(folder))

    return strip


@pytest.mark.parametrize("name", TWINS)
def test_twins_keep_their_own_pad_token(name: str) -> None:
    tokenizer = load_tokenizer(resolve_source(path=f"twin:{name}"), padding_side="left")
    assert tokenizer.pad_token in ("<pad>", "<|endoftext|>")
    rows = tokenizer(["a", "a longer one"], padding=True)["input_ids"]
    assert rows[0][0] == tokenizer.pad_token_id and len(rows[0]) == len(rows[1])


def test_a_spare_token_takes_the_part_before_the_end_token_does(
    stripped: Callable[[str, set[str]], ModelSource], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "emotion_sweeps"):
        tokenizer = load_tokenizer(stripped("qwen3_tiny", {"pad_token"}), padding_side="right")
    assert tokenizer.pad_token == "<|endoftext|>" != tokenizer.eos_token
    assert len(tokenizer) == len(load_tokenizer(resolve_source(path="twin:qwen3_tiny"), padding_side="right"))
    assert "has no pad token" in caplog.text


def words_only(*special: str, **names: str) -> TokenizersBackend:
    words = {word: index for index, word in enumerate(["hello", "world", *special])}
    return TokenizersBackend(tokenizer_object=Tokenizer(WordLevel(words, unk_token="hello")), **names)


def test_the_end_token_pads_when_nothing_else_can() -> None:
    tokenizer = words_only("</s>", eos_token="</s>")
    ensure_pad_token(tokenizer, "bare")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2


def test_a_tokenizer_without_any_candidate_is_refused() -> None:
    with pytest.raises(UserError, match="neither a pad nor an end token"):
        ensure_pad_token(words_only(), "bare")


def test_no_path_is_saved_with_it(stripped: Callable[[str, set[str]], ModelSource], tmp_path: Path) -> None:
    source = stripped("gemma3_tiny", set())
    tokenizer = load_tokenizer(source, padding_side="right")
    assert tokenizer.name_or_path == "gemma3_tiny"
    tokenizer.save_pretrained(tmp_path / "saved")
    for file in (tmp_path / "saved").iterdir():
        assert str(tmp_path) not in file.read_text("utf-8")
