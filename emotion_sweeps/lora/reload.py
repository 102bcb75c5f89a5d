"""Load an adapter folder back: rebuild the base from the card, put the adapter on, ready to predict.

The base is rebuilt exactly as it was trained on (source, head, pooling, labels, precision, quantisation), so
the logits are the same in another process: to 1e-5 in fp32; a bf16 run was computed under autocast, and without it
its probabilities differ by about 1e-3. Nothing in the folder is executed: safetensors only, and
remote code of the base only where the caller allows it, whatever the card says.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

from emotion_sweeps.errors import UserError
from emotion_sweeps.lora.card import read_card
from emotion_sweeps.lora.inject import quiet_peft
from emotion_sweeps.models.architecture import read_config
from emotion_sweeps.models.load import load_classifier, load_generator
from emotion_sweeps.models.quantization import bitsandbytes_config
from emotion_sweeps.models.sources import ModelSource, resolve_source
from emotion_sweeps.models.tokenizers import load_tokenizer
from emotion_sweeps.models.twins import RECIPE_KEY

ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Loaded:
    """An adapter on its base, in eval mode, with its tokenizer and its card."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    card: dict[str, Any]


def load_adapter_folder(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    load_in_4bit: bool | None = None,
    base: str | None = None,
    trust_remote_code: bool = False,
) -> Loaded:
    """Load what `save_adapter` wrote.

    Args:
        dtype: of the backbone; left out, that of the training.
        load_in_4bit: left out, as in the training.
        base: where the base is now, a local folder or hub id; needed when it was trained on a local folder.

    Raises:
        UserError: the folder is not an adapter of this project, its weights are missing, or its base cannot be had.
    """
    folder = Path(folder)
    card = read_card(folder)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"adapter: {folder} holds no {ADAPTER_WEIGHTS}; give the adapter/ folder of a finished trial")
    source = _base_source(card["source"], base)
    _check_recipe(card["source"], source)
    side = "left" if card["task"] == "label_generation" else "right"
    tokenizer = load_tokenizer(ModelSource(str(folder), source.reference), padding_side=side)
    model = _load_base(card, source, tokenizer, device, dtype, load_in_4bit, trust_remote_code)
    with quiet_peft():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            peft_model = PeftModel.from_pretrained(model, str(folder), torch_device=str(device))
        except UserWarning as warning:
            raise UserError(
                f"adapter: {folder / ADAPTER_WEIGHTS} lacks weights of the adapter; train again"
            ) from warning
    _restore_saved_modules(peft_model, folder)
    return Loaded(peft_model.eval(), tokenizer, card)


def _restore_saved_modules(peft_model: PeftModel, folder: Path) -> None:
    """Undo PEFT's adding of both usual head names on every load, so that a second save writes the same config."""
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    peft_model.peft_config["default"].modules_to_save = config["modules_to_save"]


def _load_base(
    card: Mapping[str, Any],
    source: ModelSource,
    tokenizer: PreTrainedTokenizerBase,
    device: str | torch.device,
    dtype: torch.dtype | None,
    load_in_4bit: bool | None,
    trust_remote_code: bool,
) -> PreTrainedModel:
    """The frozen base as the card describes it; the head's first weights do not matter, the adapter's replace them."""
    shared: dict[str, Any] = {
        "dtype": dtype or getattr(torch, card.get("dtype", "float32")),
        "quantization": _quantization(card.get("quantization"), load_in_4bit),
        "device_map": {"": str(device)},
        "attn_implementation": card.get("attn_implementation"),
        "pad_token_id": tokenizer.pad_token_id,
        "trust_remote_code": trust_remote_code,
        "kind": card["kind"],
    }
    if card["task"] == "label_generation":
        return load_generator(source, **shared)
    labels = {"label_names": card["label_names"], "multilabel": card["multilabel"], "pooling": card["pooling"]}
    return load_classifier(source, **labels, seed=0, **shared)


def _base_source(settings: Mapping[str, Any], base: str | None) -> ModelSource:
    """Where the base is: `base` when given, else what the card says."""
    if base is not None:
        return resolve_source(path=base)
    if settings.get("local_folder") and not Path(str(settings["path"])).is_dir():
        raise UserError(
            f"adapter: it was trained on a local folder named {settings['path']}; say where that is now (base=...)"
        )
    optional = ("revision", "package", "sha256", "twin")
    return resolve_source(path=str(settings["path"]), **{key: settings.get(key) for key in optional})


def _check_recipe(settings: Mapping[str, Any], source: ModelSource) -> None:
    """A twin that was built from other texts or by other libraries has other weights: say so."""
    if "recipe" not in settings:
        return
    here = getattr(read_config(source).get_text_config(), RECIPE_KEY, None)
    if here != settings["recipe"]:
        raise UserError(
            f"adapter: it was trained on another build of {settings['reference']} (recipe {settings['recipe']}, here "
            f"{here}); train it again"
        )


def _quantization(settings: Mapping[str, Any] | None, load_in_4bit: bool | None) -> BitsAndBytesConfig | None:
    wanted = bool(settings) if load_in_4bit is None else load_in_4bit
    if not wanted:
        return None
    settings = settings or {"compute_dtype": "float32"}
    return bitsandbytes_config(
        compute_dtype=getattr(torch, settings["compute_dtype"]),
        quant_type=settings.get("quant_type", "nf4"),
        double_quant=settings.get("double_quant", True),
    )
