"""What a base model is, read from its config: encoder or decoder, its pooling, its attention kernels.

The kind decides which class is loaded and which tasks fit, so a config that does not tell is an error that
asks for `model.kind`, never a guess.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from emotion_sweeps.errors import UserError
from emotion_sweeps.models.hub import hub_options, loading_errors
from emotion_sweeps.models.sources import ModelSource
from emotion_sweeps.notices import notice_once


def model_kind(source: ModelSource, *, kind: str | None = None, trust_remote_code: bool = False) -> str:
    """Read "encoder" or "decoder" off the model's config; a `kind` that is one of the two overrides it."""
    if kind in ("encoder", "decoder"):
        return kind
    return kind_of(read_config(source, trust_remote_code), source)


def resolve_pooling(pooling: str, kind: str) -> str:
    """ "auto" becomes the stock head's own pooling: first token of an encoder, last token of a decoder.

    Raises:
        UserError: the pooling asks for the other kind of model.
    """
    if pooling == "auto":
        return "first" if kind == "encoder" else "last"
    if pooling == "last" and kind == "encoder":
        raise UserError("model.pooling=last needs a decoder, and this model is an encoder; take mean or first")
    if pooling == "first" and kind == "decoder":
        raise UserError("model.pooling=first needs an encoder, and this model is a decoder; take mean or last")
    return pooling


def read_config(source: ModelSource, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The model's config, with every failure told in one line."""
    with loading_errors(source, "config"):
        return AutoConfig.from_pretrained(source.location, **hub_options(source, trust_remote_code))


def kind_of(config: PreTrainedConfig, source: ModelSource) -> str:
    """Encoder or decoder by the config's own flags, then by what transformers offers for the model type."""
    text = config.get_text_config()
    if config.is_encoder_decoder:
        raise UserError(
            f"model.path={source.reference} is an encoder-decoder ({config.model_type}), which is not "
            "supported; take an encoder or a decoder"
        )
    if getattr(text, "is_decoder", False):
        return "decoder"
    if getattr(text, "use_bidirectional_attention", False) is True:
        return "encoder"
    if text.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    if {text.model_type, config.model_type} & MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys():
        return "decoder"
    architectures = " ".join(config.architectures or [])
    if "ForCausalLM" in architectures or "LMHeadModel" in architectures:
        return "decoder"
    if "ForMaskedLM" in architectures:
        return "encoder"
    raise UserError(
        f"model.kind cannot be told from the config of model.path={source.reference} (model_type "
        f"{config.model_type}); set model.kind=encoder or model.kind=decoder"
    )


def supported_attention(auto_class: Any, config: PreTrainedConfig, wanted: str | None) -> str | None:
    """`wanted`, or eager with a notice where the architecture has no fused attention (DeBERTa)."""
    model_class = auto_class._model_mapping.get(type(config), None)
    if wanted == "sdpa" and model_class is not None and not getattr(model_class, "_supports_sdpa", True):
        notice_once(f"model.attn_implementation=sdpa: {config.model_type} has only the eager one, which is used")
        return "eager"
    return wanted
