"""`load` fills in the defaults of the `data` settings, `write` writes a file, `tokenizers` are made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from emotion_sweeps.data.corpus import Corpus
from emotion_sweeps.data.load import load_corpus

DEFAULTS: dict[str, Any] = {
    "source": "files", "name": "corpus", "train": None, "validation": None, "test": None, "format": "auto",
    "delimiter": None, "header": None, "text_column": None, "label_column": None, "label_columns": None,
    "id_column": None, "label_separator": None, "labels": None, "path": None, "config_name": None, "revision": None,
    "validation_fraction": 0.1, "test_fraction": 0.0, "split_seed": 0, "max_samples": None,
    "max_eval_samples": None, "drop_leaks": False,
}  # fmt: skip


@pytest.fixture
def load() -> Callable[..., Corpus]:
    """`load_corpus` with the defaults of the settings."""
    return lambda **settings: load_corpus(**{**DEFAULTS, **{k: _plain(v) for k, v in settings.items()}})


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write text (as UTF-8, line ends as they are) or bytes to a file of that name."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write_file


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DROPPING_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] != 'system' %}"
    "[{{ m['role'] }}] {{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def build_tokenizer(
    specials: list[str], *, frame: str = "$A", template: str | None = None, **tokens: str
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; `frame` says which special tokens it adds by itself ("<s> $A </s>")."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    texts = ["joy anger fear love sadness none", "Classify the emotion in the following text. Choose from: joy, anger"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        texts * 3, trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    )
    ids = [(token, core.token_to_id(token)) for token in specials]
    core.post_processor = processors.TemplateProcessing(single=frame, special_tokens=ids)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **tokens)
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    """Small tokenizers with the ways of the families: which special tokens they add, and how they chat."""
    encoder = ["<s>", "</s>", "<pad>", "<mask>"]
    gemma = ["<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"]
    qwen = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return {
        "encoder": build_tokenizer(encoder, frame="<s> $A </s>", **ends),
        "plain": build_tokenizer(encoder, frame="<s> $A", **ends),
        "gemma": build_tokenizer(
            gemma, frame="<bos> $A", template=GEMMA_TEMPLATE, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
        ),
        "qwen": build_tokenizer(qwen, template=QWEN_TEMPLATE, eos_token="<|im_end|>", pad_token="<|endoftext|>"),
        "dropping": build_tokenizer(encoder, frame="<s> $A", template=DROPPING_TEMPLATE, **ends),
    }
