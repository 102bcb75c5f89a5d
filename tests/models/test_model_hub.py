"""Every way in which loading fails is one line with a remedy, and an unreachable hub is known at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig

from emotion_sweeps.errors import UserError
from emotion_sweeps.models import hub
from emotion_sweeps.models.hub import hub_has_address, hub_options, loading_errors
from emotion_sweeps.models.sources import ModelSource
from emotion_sweeps.models.tokenizers import load_tokenizer

HUB = ModelSource("someone/model", "someone/model")
LOCAL = ModelSource(str(Path(__file__).parent), "my-model")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError("You are trying to access a gated repo. Cannot access gated repo for url"), "accept its licence"),
        (OSError("We couldn't connect to 'https://huggingface.co' to load the files"), "give a local folder"),
        (OSError("x is not a local folder and is not a valid model identifier"), "check the id"),
        (ValueError("requires you to execute code; set the option `trust_remote_code=True`"), "trust_remote_code=true"),
        (OSError("m does not appear to have a file named model.safetensors"), "pickled ones are refused"),
        (ImportError("LlamaTokenizer requires the SentencePiece library"), "install it"),
        (ValueError("model type `newest` is not recognised"), "check the id"),
    ],
)
def test_each_failure_has_its_own_remedy(error: Exception, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy) as told, loading_errors(HUB, "weights"):
        raise error
    assert "\n" not in str(told.value) and "someone/model" in str(told.value)
    assert told.value.__cause__ is error


def test_a_missing_revision_is_named() -> None:
    source = ModelSource("someone/model", "someone/model", revision="v9")
    with pytest.raises(UserError, match="model.revision=v9"), loading_errors(source, "config"):
        raise OSError("v9 is not a valid git identifier (branch name, tag name or commit id): revision not found")


def test_a_broken_folder_is_not_blamed_on_the_network() -> None:
    with pytest.raises(UserError, match="cannot read the weights") as told, loading_errors(LOCAL, "weights"):
        raise OSError("Unable to load weights from the file")
    assert "HF_HUB_OFFLINE" not in str(told.value)


def test_a_user_error_passes_through_untouched() -> None:
    with pytest.raises(UserError, match="^as it is$"), loading_errors(HUB, "weights"):
        raise UserError("as it is")


def test_offline_without_a_cache_is_one_line(tmp_path: Path) -> None:
    code = (
        "from emotion_sweeps.errors import UserError\n"
        "from emotion_sweeps.models.sources import resolve_source\n"
        "from emotion_sweeps.models.tokenizers import load_tokenizer\n"
        "from emotion_sweeps.models.load import model_kind\n"
        "for load in (model_kind, lambda source: load_tokenizer(source, padding_side='right')):\n"
        "    try: load(resolve_source(path='FacebookAI/roberta-base'))\n"
        "    except UserError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 2, done.stderr
    for line in lines:
        assert "FacebookAI/roberta-base" in line and "model.path=/" in line and "HF_HUB_OFFLINE=1" in line


def test_a_hub_without_an_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name(*_: object) -> None:
        raise socket.gaierror("Name or service not known")

    for name in hub._PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    hub_has_address.cache_clear()
    assert hub_options(HUB, False) == {"trust_remote_code": False, "local_files_only": True}
    hub_has_address.cache_clear()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert "local_files_only" not in hub_options(HUB, False)
    hub_has_address.cache_clear()


def test_local_folders_need_no_name_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hub_has_address", lambda: pytest.fail("asked"))
    assert hub_options(LOCAL, True) == {"trust_remote_code": True}


def test_truncated_weights_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"')
    source = ModelSource(str(tmp_path), tmp_path.name)
    with pytest.raises(UserError, match=tmp_path.name), loading_errors(source, "config"):
        AutoConfig.from_pretrained(source.location)


def test_a_folder_without_tokenizer_files_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="tokenizer"):
        load_tokenizer(ModelSource(str(tmp_path), "bare"), padding_side="right")
