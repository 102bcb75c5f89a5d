"""Small tokenizers for the twins: byte-pair encodings of the bundled posts, in each family's conventions.

The vocabulary and merges come from `tokenizers`' BPE trainer (deterministic for one version of that library);
the normaliser, pre-tokeniser and special tokens are those of the family's own tokenizer class in
transformers, so a twin goes through the same code as the real one: RoBERTa wraps a text in <s> ... </s>,
Gemma puts <bos> in front and falls back to bytes, Qwen has no start token at all. Chat templates are cut
down, not invented.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import GemmaTokenizer, PreTrainedTokenizerBase, Qwen2Tokenizer, RobertaTokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

# As the real one: a system turn is folded into the user's, roles must alternate, no system role of its own.
GEMMA_TEMPLATE = """{{ bos_token }}\
{%- if messages[0]['role'] == 'system' -%}\
{%- set prefix = messages[0]['content'] + '\\n\\n' -%}{%- set turns = messages[1:] -%}\
{%- else -%}{%- set prefix = '' -%}{%- set turns = messages -%}{%- endif -%}\
{%- for message in turns -%}\
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}\
{%- endif -%}\
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}\
{{ '<start_of_turn>' + role + '\\n' + (prefix if loop.first else '') -}}\
{{ message['content'] | trim + '<end_of_turn>\\n' }}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"""

CHATML_TEMPLATE = """{%- for message in messages -%}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""

# Qwen3 thinks before it answers unless it is told not to: then an empty thought is already in the prompt.
QWEN3_TEMPLATE = (
    CHATML_TEMPLATE.removesuffix("{%- endif -%}")
    + "{%- if enable_thinking is defined and enable_thinking is false -%}"
    + "{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}{%- endif -%}"
)


def roberta_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE; <s>=0, <pad>=1, </s>=2, <unk>=3 and <mask> last, as in RoBERTa."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocab, merges = _train(backend, texts, ["<s>", "<pad>", "</s>", "<unk>"], vocab_size - 1)
    vocab["<mask>"] = len(vocab)
    return RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=512)


def gemma_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """BPE over "▁"-marked words with byte fallback; <pad>=0, <eos>=1, <bos>=2, turn marks special."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")  # merges stay inside words
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    vocab, merges = _train(backend, texts, special + bytes_, vocab_size, byte_level=False)
    return GemmaTokenizer(
        vocab=vocab,
        merges=merges,
        add_bos_token=True,
        extra_special_tokens=special[-2:],
        chat_template=GEMMA_TEMPLATE,
        model_max_length=2048,
    )


def qwen2_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE with ChatML: ends with <|im_end|>, padded with <|endoftext|>, no start token."""
    return _qwen_tokenizer(texts, vocab_size, CHATML_TEMPLATE, thinks=False)


def qwen3_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """As Qwen2.5, with <think> marks and the `enable_thinking` switch in its template."""
    return _qwen_tokenizer(texts, vocab_size, QWEN3_TEMPLATE, thinks=True)


def _qwen_tokenizer(texts: Sequence[str], vocab_size: int, template: str, thinks: bool) -> PreTrainedTokenizerBase:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    marks = ["<think>", "</think>"] if thinks else []
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    vocab, merges = _train(backend, texts, [], vocab_size - len(special) - len(marks))
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
        model_max_length=2048,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in marks])
    return tokenizer


def _train(
    backend: Tokenizer,
    texts: Sequence[str],
    reserved: list[str],
    vocab_size: int,
    byte_level: bool = True,
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges learned from `texts`, with `reserved` at the first ids."""
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=reserved,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()) if byte_level else [],
        min_frequency=2,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model: dict[str, Any] = json.loads(backend.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]
