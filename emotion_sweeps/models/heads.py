"""The class head of any sequence classifier: which modules it is, how it starts, and that it stays in fp32.

A fresh head is drawn N(0, 0.02^2) with zero bias from a generator of its own, so equal seeds give equal heads
whatever the dtype, the device or the numbers drawn before. Stock heads do not cast their input; a hook does,
so that a bf16 or 4-bit backbone feeds an fp32 head (under autocast the matmul itself runs in autocast's
dtype).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

HEAD_STD = 0.02  # as BERT, RoBERTa, Gemma, Qwen; the twins' 0.2 would start far from chance


def head_names(model: nn.Module) -> list[str]:
    """Names of the top-level modules that make up the class head; empty for a generator or a bare backbone.

    Everything beside the backbone counts: "classifier" or "score", and what an architecture puts before it
    (DistilBERT's "pre_classifier", DeBERTa's "pooler", ModernBERT's "head").
    """
    base = _unwrap(model)
    if base.get_output_embeddings() is not None or base.base_model is base:  # a generator, a bare backbone
        return []
    return [
        name
        for name, child in base.named_children()
        if name != base.base_model_prefix and any(True for _ in child.parameters())
    ]


def output_layer_name(model: nn.Module) -> str:
    """Full name of the head's last linear layer, the one with a row for each label."""
    base = _unwrap(model)
    linear: list[str] = [
        name
        for head in head_names(base)
        for name, module in base.get_submodule(head).named_modules(prefix=head)
        if isinstance(module, nn.Linear)
    ]
    return linear[-1]


def draw_head(model: nn.Module, seed: int, keep: Collection[str] = ()) -> None:
    """Draw the head's parameters from `seed`, in fp32, except those named in `keep` (they are only cast)."""
    generator = torch.Generator().manual_seed(seed)
    for head in head_names(model):
        for name, parameter in model.get_submodule(head).named_parameters(prefix=head):
            value = _draw(parameter, name, generator)
            if name in keep:
                parameter.data = parameter.data.to(torch.float32)
            else:
                parameter.data = value.to(parameter.device)


def feed_head_full_precision(model: nn.Module) -> None:
    """Hook the head's modules so that they cast what comes in to their own dtype."""
    for head in head_names(model):
        model.get_submodule(head).register_forward_pre_hook(_cast_inputs)


def assert_head_full_precision(model: nn.Module) -> None:
    """Fail when any parameter of the class head is quantised or below fp32."""
    base = _unwrap(model)
    for head in head_names(base):
        for name, parameter in base.get_submodule(head).named_parameters(prefix=head):
            if parameter.dtype not in (torch.float32, torch.float64):
                raise AssertionError(f"{name} of the class head is {parameter.dtype}, not full precision")


def _draw(parameter: torch.Tensor, name: str, generator: torch.Generator) -> torch.Tensor:
    if parameter.dim() >= 2:
        return torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, HEAD_STD, generator=generator)
    return torch.full(parameter.shape, 0.0 if name.endswith("bias") else 1.0, dtype=torch.float32)


def _cast_inputs(module: nn.Module, args: tuple[object, ...]) -> tuple[object, ...]:
    dtype = next(module.parameters()).dtype
    return tuple(
        value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value for value in args
    )


def _unwrap(model: Any) -> Any:
    """The transformers model inside a PEFT model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
