"""Write an adapter to a folder: PEFT's files, the tokenizer, the card, in safetensors and in one step.

Everything is written beside the folder first and moved there at the end, so a kill leaves the old folder or
the new one, never half of either. A rank-16 adapter of MiniLM is about 5 MB.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from emotion_sweeps.lora.card import complete_card, write_card
from emotion_sweeps.models.twins import MARKER, RECIPE_KEY


def save_adapter(
    peft_model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, *, card: Mapping[str, Any]
) -> Path:
    """Write the adapter, the class head, the tokenizer and the card; an older folder is replaced.

    Args:
        card: task, kind, source (see `source_card`), label_names, multilabel, pooling, and as they apply dtype,
            quantization (see `describe_quantization`), thresholds, max_length, prompt.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = peft_model.peft_config["default"]
    full = complete_card(card, reference=config.base_model_name_or_path, recipe=_recipe(peft_model))
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        # Embeddings are saved where they are trained (modules_to_save); "auto" would ask the hub.
        peft_model.save_pretrained(str(scratch), save_embedding_layers=False)
        _sort_targets(scratch / "adapter_config.json")
        tokenizer.save_pretrained(str(scratch))
        write_card(full, scratch)
        (scratch / "README.md").write_text(_readme(full), encoding="utf-8")
        scratch.chmod(0o755)
        _replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _replace(new: Path, folder: Path) -> None:
    """Move `new` to `folder`; what was there goes only after the move has worked."""
    if not folder.exists():
        os.replace(new, folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    os.replace(folder, aside / folder.name)
    os.replace(new, folder)
    shutil.rmtree(aside, ignore_errors=True)


def _sort_targets(file: Path) -> None:
    """PEFT keeps the targets in a set; sorted, the same adapter gives the same file."""
    config = json.loads(file.read_text("utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _recipe(peft_model: PeftModel) -> str | None:
    """The digest of the twin under the adapter, so that another build of it is noticed on loading."""
    config = peft_model.get_base_model().config.get_text_config()
    return str(getattr(config, RECIPE_KEY)) if getattr(config, MARKER, False) else None


def _readme(card: Mapping[str, Any]) -> str:
    """A model card that says what this is and how it is loaded."""
    source = card["source"]
    hub = not (source.get("local_folder") or source.get("twin"))
    lines = ["---", "library_name: peft", "tags: [lora, emotion-classification]"]
    lines += [f"base_model: {source['reference']}"] if hub else []
    lines += ["---", "", f"# LoRA adapter for emotions on {source['reference']}", ""]
    lines += [f"Task: {card['task']}. Labels: {', '.join(card['label_names'])}.", ""]
    if source.get("recipe"):
        lines += ["The base is a stand-in with random weights: its scores mean nothing.", ""]
    lines += ["```python", "from emotion_sweeps.lora.reload import load_adapter_folder", ""]
    lines += ['loaded = load_adapter_folder("path/to/this/folder")  # .model, .tokenizer, .card', "```", ""]
    return "\n".join(lines)
