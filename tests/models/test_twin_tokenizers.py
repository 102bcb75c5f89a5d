"""The twins' tokenizers keep their families' conventions, through transformers' own classes."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from emotion_sweeps.models.twins import TWINS, twin_folder

POST = "I can't believe it 😀😀 — naïve 中文 #win\nsecond line"


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(twin_folder(name))


@pytest.mark.parametrize("name", TWINS)
def test_any_text_survives_a_round_trip(name: str) -> None:
    tokenizer = tokenizer_of(name)
    ids = tokenizer(POST)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == POST
    assert len(ids) < len(POST.encode())  # words are merged, not spelled byte by byte
    assert max(ids) < len(tokenizer)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [("roberta_tiny", "<s>", "</s>"), ("gemma3_tiny", "<bos>", None), ("qwen3_tiny", None, None)],
)
def test_special_tokens_stand_where_the_family_puts_them(name: str, first: str | None, last: str | None) -> None:
    tokenizer = tokenizer_of(name)
    bare, full = tokenizer("hello", add_special_tokens=False)["input_ids"], tokenizer("hello")["input_ids"]
    around = [tokenizer.convert_tokens_to_ids(token) if token else None for token in (first, last)]
    assert full == [*([around[0]] if first else []), *bare, *([around[1]] if last else [])]


@pytest.mark.parametrize(
    ("name", "specials"),
    [
        ("roberta_tiny", {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}),
        ("gemma3_tiny", {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}),
    ],
)
def test_special_ids_are_the_originals(name: str, specials: dict[str, int]) -> None:
    vocabulary = tokenizer_of(name).get_vocab()
    assert {token: vocabulary[token] for token in specials} == specials


def test_qwen_pads_with_endoftext_and_ends_with_im_end() -> None:
    tokenizer = tokenizer_of("qwen3_tiny")
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.bos_token) == ("<|endoftext|>", "<|im_end|>", None)


def test_gemma_folds_a_system_turn_into_the_users() -> None:
    tokenizer = tokenizer_of("gemma3_tiny")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " hi "}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<bos><start_of_turn>user\nBe brief.\n\nhi<end_of_turn>\n<start_of_turn>model\n"
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert tokenizer.decode(ids) == text and ids.count(tokenizer.bos_token_id) == 1


def test_gemma_refuses_two_turns_of_one_side() -> None:
    with pytest.raises(Exception, match="alternate"):
        tokenizer_of("gemma3_tiny").apply_chat_template([{"role": "user", "content": "a"}] * 2, tokenize=False)


def test_qwen3_can_be_told_not_to_think() -> None:
    turns = [{"role": "user", "content": "hi"}]
    tokenizer = tokenizer_of("qwen3_tiny")
    options = {"tokenize": False, "add_generation_prompt": True}
    plain = tokenizer.apply_chat_template(turns, **options)
    assert plain == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    silent = tokenizer.apply_chat_template(turns, enable_thinking=False, **options)
    assert silent == plain + "<think>\n\n</think>\n\n"
    assert tokenizer_of("qwen2_5_tiny").apply_chat_template(turns, **options) == plain


def test_roberta_has_no_chat_template() -> None:
    assert tokenizer_of("roberta_tiny").chat_template is None
