"""Load a frozen base with a class head on it, or as a text generator, ready for an adapter.

Which class is loaded follows from kind and pooling: `mean` is our `PooledClassifier` around the bare
backbone, `first` the stock sequence classifier of an encoder, `last` that of a decoder (transformers finds
the last token by its id differing from the pad id, so padding goes right and the pad id is set on the
config). The head is fp32 and drawn from `seed` alone. Whatever the checkpoint lacks beside the head is an
error, not a random layer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from emotion_sweeps.errors import UserError
from emotion_sweeps.models.architecture import (
    kind_of,
    model_kind,
    read_config,
    resolve_pooling,
    supported_attention,
)
from emotion_sweeps.models.heads import draw_head, feed_head_full_precision, head_names, output_layer_name
from emotion_sweeps.models.hub import hub_options, loading_errors, quiet_loading
from emotion_sweeps.models.pooled import PooledClassifier, PooledConfig, pooler_options
from emotion_sweeps.models.quantization import for_architecture, keep_differentiable
from emotion_sweeps.models.rng import seeded
from emotion_sweeps.models.sources import ModelSource
from emotion_sweeps.notices import notice_once

__all__ = ["load_classifier", "load_generator", "model_kind", "resolve_pooling"]

DeviceMap = str | dict[str, Any] | None


def load_classifier(
    source: ModelSource,
    *,
    label_names: Sequence[str],
    multilabel: bool,
    pooling: str,
    dtype: torch.dtype,
    quantization: BitsAndBytesConfig | None,
    device_map: DeviceMap,
    attn_implementation: str | None,
    pad_token_id: int,
    seed: int,
    trust_remote_code: bool = False,
    kind: str | None = None,
) -> PreTrainedModel:
    """A base with a fresh class head, in eval mode; its forward gives `.logits` `(batch, num_labels)`.

    Args:
        pooling: "mean", "first", "last", or "auto".
        dtype: of the backbone; the head is always fp32.
        pad_token_id: of the tokenizer; the stock decoder heads look for it.
        seed: of the head's first weights; nothing else depends on it, nor it on the global generator.
        kind: "encoder" or "decoder" where the config does not tell.
    """
    config = read_config(source, trust_remote_code)
    kind = kind if kind in ("encoder", "decoder") else kind_of(config, source)
    pooling = resolve_pooling(pooling, kind)
    trained_labels = _label_names(config)
    config.use_cache = False
    config.get_text_config().pad_token_id = pad_token_id
    options = {
        "dtype": dtype,
        "device_map": device_map,
        "attn_implementation": attn_implementation,
        "use_safetensors": True,
        **hub_options(source, trust_remote_code),
    }
    build = _pooled if pooling == "mean" else _stock
    with seeded(seed):
        model, missing = build(source, config, list(label_names), multilabel, quantization, options)
    _start_head(model, source, seed, missing, trained_labels == list(label_names))
    _rename(model, source)
    return model.eval()


def load_generator(
    source: ModelSource,
    *,
    dtype: torch.dtype,
    quantization: BitsAndBytesConfig | None,
    device_map: DeviceMap,
    attn_implementation: str | None,
    pad_token_id: int,
    trust_remote_code: bool = False,
    kind: str | None = None,
) -> PreTrainedModel:
    """A decoder that writes text, in eval mode.

    Raises:
        UserError: the model is an encoder, or its checkpoint is incomplete.
    """
    config = read_config(source, trust_remote_code)
    if (kind if kind in ("encoder", "decoder") else kind_of(config, source)) == "encoder":
        raise UserError(
            f"task=label_generation needs a decoder that writes text, and model.path={source.reference} is an "
            "encoder; take a decoder such as model=qwen3_0_6b, or task=multilabel_head"
        )
    config.get_text_config().pad_token_id = pad_token_id
    options = {
        "dtype": dtype,
        "device_map": device_map,
        "attn_implementation": attn_implementation,
        "use_safetensors": True,
        **hub_options(source, trust_remote_code),
    }
    model, missing = _from_pretrained(AutoModelForCausalLM, source, config, quantization, options)
    _refuse_random_layers(missing, source)
    model.generation_config.pad_token_id = pad_token_id
    _rename(model, source)
    return model.eval()


def _pooled(
    source: ModelSource,
    config: PreTrainedConfig,
    label_names: list[str],
    multilabel: bool,
    quantization: BitsAndBytesConfig | None,
    options: dict[str, Any],
) -> tuple[PreTrainedModel, set[str]]:
    """Our mean-pooled classifier around the bare backbone, and the head's names as missing."""
    options = {**options, **pooler_options(config)}
    backbone, missing = _from_pretrained(AutoModel, source, config, quantization, options)
    _refuse_random_layers(missing, source)
    # A copy: building a composite config resets the attention kernels of its parts.
    pooled = PooledConfig(base_config=copy.deepcopy(backbone.config))
    _set_labels(pooled, label_names, multilabel)
    pooled._attn_implementation = backbone.config._attn_implementation
    model = PooledClassifier(pooled, backbone)
    model.classifier.to(backbone.device)
    for attribute in (
        "hf_quantizer",
        "is_loaded_in_4bit",
        "is_quantized",
        "quantization_method",
        "hf_device_map",
    ):
        if hasattr(backbone, attribute):  # what Trainer and PEFT look for on the outermost model
            setattr(model, attribute, getattr(backbone, attribute))
    return model, {name for name, _ in model.named_parameters() if name.startswith("classifier.")}


def _stock(
    source: ModelSource,
    config: PreTrainedConfig,
    label_names: list[str],
    multilabel: bool,
    quantization: BitsAndBytesConfig | None,
    options: dict[str, Any],
) -> tuple[PreTrainedModel, set[str]]:
    """The architecture's own sequence classifier, and the names of the head parameters that were not loaded."""
    _set_labels(config, label_names, multilabel)
    auto = AutoModelForSequenceClassification
    model, missing = _from_pretrained(auto, source, config, quantization, {**options, "ignore_mismatched_sizes": True})
    heads = tuple(f"{name}." for name in head_names(model))
    lost = {name for name in missing if not name.startswith(heads)}
    if any(".pooler." in name for name in lost):
        raise UserError(
            f"model.pooling=first reads the pooler of model.path={source.reference}, for which its checkpoint has "
            "no weights; take model.pooling=mean"
        )
    _refuse_random_layers(lost, source)
    return model, missing


def _from_pretrained(
    auto_class: Any,
    source: ModelSource,
    config: PreTrainedConfig,
    quantization: BitsAndBytesConfig | None,
    options: dict[str, Any],
) -> tuple[PreTrainedModel, set[str]]:
    """The model, and the names of parameters that the checkpoint lacks (or holds in another shape)."""
    options = {
        **options,
        "attn_implementation": supported_attention(auto_class, config, options["attn_implementation"]),
    }
    with loading_errors(source, "weights"), quiet_loading():
        if quantization is not None:
            options["quantization_config"] = for_architecture(
                quantization, auto_class, config, options["trust_remote_code"]
            )
        model, info = auto_class.from_pretrained(source.location, config=config, output_loading_info=True, **options)
    keep_differentiable(model)
    mismatched = {entry[0] if isinstance(entry, tuple) else entry for entry in info["mismatched_keys"]}
    return model, set(info["missing_keys"]) | mismatched


def _start_head(model: PreTrainedModel, source: ModelSource, seed: int, missing: set[str], same_labels: bool) -> None:
    """Draw what the checkpoint lacks of the head, and the output layer unless it was trained on these labels."""
    parameters = {
        name for head in head_names(model) for name, _ in model.get_submodule(head).named_parameters(prefix=head)
    }
    keep = parameters - missing
    if not same_labels:
        keep = {name for name in keep if not name.startswith(output_layer_name(model) + ".")}
    if keep:
        notice_once(f"model.path={source.reference}: the head starts from the checkpoint's {', '.join(sorted(keep))}")
    draw_head(model, seed, keep)
    feed_head_full_precision(model)


def _set_labels(config: PreTrainedConfig, label_names: list[str], multilabel: bool) -> None:
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    config.problem_type = "multi_label_classification" if multilabel else "single_label_classification"


def _label_names(config: PreTrainedConfig) -> list[str]:
    return [str(config.id2label[index]) for index in sorted(config.id2label)] if config.id2label else []


def _refuse_random_layers(missing: set[str], source: ModelSource) -> None:
    if missing:
        raise UserError(
            f"model.path={source.reference}: its checkpoint has no weights for {len(missing)} parameters of "
            f"the backbone ({sorted(missing)[0]}, ...); it is incomplete or of another architecture"
        )


def _rename(model: PreTrainedModel, source: ModelSource) -> None:
    """Let the model go by its reference: PEFT, model cards and configs copy this name into files."""
    model.name_or_path = source.reference
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.config._name_or_path = source.reference
            module.name_or_path = source.reference
    if isinstance(model, PooledClassifier):
        model.config.base_config._name_or_path = source.reference
