"""Twins: tiny stand-ins for the real families, of the same classes, with random weights, built on demand.

A twin exercises every code path of its family without a model hub: two layers, 64 wide, grouped-query
attention and tied embeddings where the original has them, its own tokenizer of about 1,000 entries. Its
scores mean nothing, and it says so. Weights are drawn with `initializer_range=0.2`: at the usual 0.02 the
frozen tied embeddings cap the logits, and not even 32 texts can be learned by heart. Building takes under a
second, once a machine; the folder's name holds a digest of the whole recipe (texts, sizes, library version),
so another recipe is another folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from emotion_sweeps.errors import UserError, did_you_mean
from emotion_sweeps.paths import cache_dir

VOCAB_SIZE = 1024
WEIGHTS_SEED = 20
RECIPE_VERSION = 1
MARKER = "emotion_sweeps_twin"  # in config.json: true for a twin
RECIPE_KEY = "emotion_sweeps_recipe"  # in config.json: the recipe's digest

# Read in place of the bundled posts where those are missing (a partial checkout).
_FALLBACK_TEXTS = (
    "I can't believe we won, I am so happy I could cry.",
    "Third delay this week and nobody even says sorry. Furious.",
    "What if the results are bad? I haven't slept since Monday.",
    "She left without a word and the flat has been silent ever since.",
    "That smell in the kitchen turned my stomach.",
    "Wait, you planned all of this for me? I had no idea!",
    "It will get better, it always does, one day at a time.",
    "No point in applying again, they never pick people like us.",
    "I trust my brother with my life and he knows it.",
    "Counting the hours until the concert, tickets in my pocket.",
    "Still so in love with this silly dog after eleven years.",
)

_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
_GROUPED: dict[str, Any] = {**_SIZES, "num_key_value_heads": 2, "max_position_embeddings": 2048}


@dataclass(frozen=True)
class Twin:
    """One family's recipe: the config's model type, the class to save, the tokenizer, what the config adds."""

    model_type: str
    auto_class: str  # MaskedLM or CausalLM, as the original checkpoint
    tokenizer: str  # a function of twin_tokenizers.py
    config: dict[str, Any]


TWINS: dict[str, Twin] = {
    "roberta_tiny": Twin(
        "roberta",
        "AutoModelForMaskedLM",
        "roberta_tokenizer",
        {**_SIZES, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    ),
    "gemma3_tiny": Twin(
        "gemma3_text",
        "AutoModelForCausalLM",
        "gemma_tokenizer",
        {
            **_GROUPED,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": True,
        },
    ),
    "qwen3_tiny": Twin(
        "qwen3",
        "AutoModelForCausalLM",
        "qwen3_tokenizer",
        {**_GROUPED, "head_dim": 32, "tie_word_embeddings": True},
    ),
    "qwen2_5_tiny": Twin(
        "qwen2",
        "AutoModelForCausalLM",
        "qwen2_tokenizer",
        {**_GROUPED, "tie_word_embeddings": False},
    ),
}


def twin_folder(name: str) -> Path:
    """The folder of a twin, built first where it is missing.

    Raises:
        UserError: there is no such twin, or the cache folder cannot be written.
    """
    if name not in TWINS:
        known = ", ".join(TWINS)
        raise UserError(f"model.twin={name} is not one of {known}{did_you_mean(name, TWINS)}")
    texts = training_texts()
    digest = recipe_digest(name, texts)
    folder = cache_dir() / "twins" / f"{name}-{digest}"
    if not folder.is_dir():
        try:
            _build(name, texts, digest, folder)
        except OSError as error:
            raise UserError(
                f"model.twin={name}: cannot write {folder.parent} ({error.strerror}); set EMOTION_SWEEPS_CACHE to "
                "a folder that can be written"
            ) from error
    return folder


def training_texts() -> list[str]:
    """The bundled posts in file order, or a short built-in list where they are missing."""
    demo = Path(str(files("emotion_sweeps") / "data" / "demo"))
    lines = [line for file in sorted(demo.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    return [str(json.loads(line)["text"]) for line in lines if line.strip()] or list(_FALLBACK_TEXTS)


def recipe_digest(name: str, texts: Sequence[str]) -> str:
    """Twelve hex digits over everything that a twin is made of."""
    import tokenizers

    twin = TWINS[name]
    recipe = {
        "version": RECIPE_VERSION,
        "twin": [twin.model_type, twin.auto_class, twin.tokenizer, twin.config, VOCAB_SIZE, WEIGHTS_SEED],
        "tokenizers": tokenizers.__version__,
        "texts": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def _build(name: str, texts: Sequence[str], digest: str, folder: Path) -> None:
    """Write the twin beside its place and move it there in one step: another process may do the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        _write(TWINS[name], texts, digest, scratch)
        scratch.chmod(0o755)
        try:
            os.replace(scratch, folder)
        except OSError:
            if not folder.is_dir():  # otherwise the other process was first, with the very same files
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(twin: Twin, texts: Sequence[str], digest: str, folder: Path) -> None:
    import torch
    import transformers
    from transformers import AutoConfig

    from emotion_sweeps.models import twin_tokenizers
    from emotion_sweeps.models.hub import quiet_loading
    from emotion_sweeps.models.rng import seeded

    make: Callable[[Sequence[str], int], Any] = getattr(twin_tokenizers, twin.tokenizer)
    tokenizer = make(texts, VOCAB_SIZE)
    config = AutoConfig.for_model(
        twin.model_type,
        **twin.config,
        vocab_size=len(tokenizer),
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **{MARKER: True, RECIPE_KEY: digest},
    )
    with seeded(WEIGHTS_SEED):
        model = getattr(transformers, twin.auto_class).from_config(config, dtype=torch.float32)
    if model.can_generate() and twin.auto_class == "AutoModelForCausalLM":
        model.generation_config.eos_token_id = _stop_ids(tokenizer)
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    with quiet_loading():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _stop_ids(tokenizer: Any) -> list[int]:
    """The ids that end an answer: the tokenizer's own and the mark that closes a turn, as in the original."""
    marks = (tokenizer.eos_token, "<end_of_turn>", "<|endoftext|>")
    vocabulary = tokenizer.get_vocab()
    return sorted({vocabulary[mark] for mark in marks if mark in vocabulary})
