"""A base model's tokenizer, with a pad token in every case.

Decoders often come without one, and then a batch of more than one text cannot be formed, nor can a class head
find the last real token. An existing token takes the part (a spare pad-like one, else the end-of-text token):
a new one would mean new embedding rows that nobody trains.
"""

from __future__ import annotations

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from emotion_sweeps.errors import UserError
from emotion_sweeps.models.hub import hub_options, loading_errors
from emotion_sweeps.models.sources import ModelSource
from emotion_sweeps.notices import notice_once

_SPARE_PADS = (
    "<pad>",
    "[PAD]",
    "<|pad|>",
    "<|padding|>",
    "<|finetune_right_pad_id|>",
    "<|endoftext|>",
    "<unk>",
    "<|unk|>",
)


def load_tokenizer(
    source: ModelSource, *, padding_side: str, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of `source`, padding on `padding_side` ("right" for heads, "left" to generate)."""
    assert padding_side in ("left", "right")
    with loading_errors(source, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            source.location, padding_side=padding_side, **hub_options(source, trust_remote_code)
        )
    if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):  # transformers makes an empty one up
        raise UserError(
            f"model.path={source.reference} holds no tokenizer; add tokenizer.json and tokenizer_config.json to it"
        )
    ensure_pad_token(tokenizer, source.reference)
    tokenizer.name_or_path = source.reference  # a path of this machine must not travel with it
    for key in ("is_local", "local_files_only"):  # how it was loaded here says nothing about where it goes
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase, reference: str) -> None:
    """Name an existing token as pad token where the tokenizer has none."""
    if tokenizer.pad_token_id is not None:
        return
    vocabulary = tokenizer.get_vocab()
    spare = next((token for token in _SPARE_PADS if token in vocabulary and token != tokenizer.eos_token), None)
    if spare is None and tokenizer.eos_token is None:
        raise UserError(
            f"model.path={reference}: its tokenizer has neither a pad nor an end token, so texts cannot be "
            "batched; set tokenizer.pad_token and save it to a local folder"
        )
    tokenizer.pad_token = spare or tokenizer.eos_token
    notice_once(f"model.path={reference}: its tokenizer has no pad token; {tokenizer.pad_token} is used for padding")
