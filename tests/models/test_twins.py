"""Twins: the same files everywhere, whole or not there, and of the classes that they stand in for."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from emotion_sweeps.errors import UserError
from emotion_sweeps.models import twins
from emotion_sweeps.models.twins import MARKER, TWINS, recipe_digest, training_texts, twin_folder

CLASSES = {
    "roberta_tiny": "RobertaForMaskedLM",
    "gemma3_tiny": "Gemma3ForCausalLM",
    "qwen3_tiny": "Qwen3ForCausalLM",
    "qwen2_5_tiny": "Qwen2ForCausalLM",
}


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_a_complete_model_folder_of_its_family(name: str) -> None:
    folder = twin_folder(name)
    config = AutoConfig.from_pretrained(folder)
    auto = AutoModelForMaskedLM if name == "roberta_tiny" else AutoModelForCausalLM
    model = auto.from_pretrained(folder)
    assert type(model).__name__ == CLASSES[name] == config.architectures[0]
    assert getattr(config, MARKER) is True
    assert config.vocab_size == len(AutoTokenizer.from_pretrained(folder)) <= twins.VOCAB_SIZE
    assert model.num_parameters() < 500_000
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied is (name != "qwen2_5_tiny")  # Qwen2.5 7B, which it stands in for, has an output matrix of its own


@pytest.mark.parametrize("name", TWINS)
def test_weights_are_wide_enough_to_overfit(name: str) -> None:
    folder = twin_folder(name)
    auto = AutoModelForMaskedLM if name == "roberta_tiny" else AutoModelForCausalLM
    embeddings = auto.from_pretrained(folder).get_input_embeddings().weight
    assert 0.15 < embeddings.std().item() < 0.25


def test_another_process_builds_the_same_bytes(tmp_path: Path) -> None:
    code = "from emotion_sweeps.models.twins import *; print(*(twin_folder(name) for name in TWINS), sep='\\n')"
    environment = {**os.environ, "EMOTION_SWEEPS_CACHE": str(tmp_path), "PYTHONHASHSEED": "7"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    built = [Path(line) for line in out.stdout.split()]
    assert len(built) == len(TWINS)
    for folder, name in zip(built, TWINS, strict=True):
        assert digests(folder) == digests(twin_folder(name))


def test_builders_that_race_leave_one_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_SWEEPS_CACHE", str(tmp_path))
    texts = training_texts()[:50]
    target = tmp_path / "twins" / "raced"
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: twins._build("qwen3_tiny", texts, "0" * 12, target), range(3)))
    assert [path.name for path in target.parent.iterdir()] == ["raced"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(digests(target))


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_SWEEPS_CACHE", str(tmp_path))
    monkeypatch.setattr(twins, "_write", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError, match="killed"):
        twin_folder("qwen3_tiny")
    assert list((tmp_path / "twins").iterdir()) == []


def test_building_leaves_the_global_generator_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_SWEEPS_CACHE", str(tmp_path))
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    twin_folder("roberta_tiny")
    assert torch.equal(torch.rand(4), expected)


def test_other_texts_are_another_recipe() -> None:
    assert recipe_digest("qwen3_tiny", ["a"]) != recipe_digest("qwen3_tiny", ["b"])
    assert recipe_digest("qwen3_tiny", ["a"]) != recipe_digest("qwen2_5_tiny", ["a"])


def test_without_the_bundled_posts_the_built_in_ones_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "files", lambda _: tmp_path)
    assert training_texts() == list(twins._FALLBACK_TEXTS)
    (tmp_path / "data" / "demo").mkdir(parents=True)
    (tmp_path / "data" / "demo" / "train.jsonl").write_text(json.dumps({"text": "hello"}) + "\n")
    assert training_texts() == ["hello"]


def test_a_cache_that_cannot_be_written_is_a_users_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMOTION_SWEEPS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set EMOTION_SWEEPS_CACHE"):
        twin_folder("roberta_tiny")
