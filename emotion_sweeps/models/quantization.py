"""4-bit NF4 weights with bitsandbytes: the frozen backbone's linear layers, never the class head.

NF4 with double quantisation (QLoRA, arXiv 2305.14314): about 0.52 bytes a weight; each forward dequantises to
the compute dtype. It runs on the CPU too. transformers decides layer by layer what to skip, and left alone it
quantises RoBERTa's `classifier.dense` and `out_proj`; so the whole head and the output embeddings are named
here, from the architecture itself where it is known (`skip_modules`).
"""

from __future__ import annotations

import copy
import logging
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedConfig

from emotion_sweeps.errors import UserError
from emotion_sweeps.models.heads import assert_head_full_precision, head_names

__all__ = [
    "assert_head_full_precision",
    "bitsandbytes_config",
    "describe_quantization",
    "for_architecture",
    "keep_differentiable",
]

# bitsandbytes says at import that it cannot fetch a faster CPU kernel from the hub; nothing here needs or wants it.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "kernels-community" not in record.getMessage()
)

_ALWAYS_SKIPPED = ["classifier", "score", "lm_head"]


def bitsandbytes_config(
    *,
    load_in_4bit: bool = True,
    compute_dtype: torch.dtype = torch.bfloat16,
    quant_type: str = "nf4",
    double_quant: bool = True,
) -> BitsAndBytesConfig | None:
    """The quantisation of a frozen base, or None without `load_in_4bit`.

    Args:
        compute_dtype: what a forward dequantises to; fp32 on a CPU without bf16 instructions.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    if not load_in_4bit:
        return None
    if find_spec("bitsandbytes") is None:
        raise UserError(
            "hardware.load_in_4bit=true needs bitsandbytes, which is not installed; "
            "pip install bitsandbytes, or set it to false"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant_type,
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=list(_ALWAYS_SKIPPED),
    )


def describe_quantization(quantization: BitsAndBytesConfig | None) -> dict[str, Any] | None:
    """What an adapter's card says of its base's quantisation: JSON-able arguments of `bitsandbytes_config`."""
    if quantization is None:
        return None
    return {
        "load_in_4bit": True,
        "compute_dtype": str(quantization.bnb_4bit_compute_dtype).removeprefix("torch."),
        "quant_type": quantization.bnb_4bit_quant_type,
        "double_quant": quantization.bnb_4bit_use_double_quant,
    }


def for_architecture(
    quantization: BitsAndBytesConfig | None,
    auto_class: Any,
    config: PreTrainedConfig,
    trust_remote_code: bool = False,
) -> BitsAndBytesConfig | None:
    """A copy that also skips this architecture's own head and output embeddings, whatever their names."""
    if quantization is None:
        return None
    quantization = copy.deepcopy(quantization)
    with torch.device("meta"):
        skeleton = auto_class.from_config(copy.deepcopy(config), trust_remote_code=trust_remote_code)
    output = skeleton.get_output_embeddings()
    outputs = [name for name, module in skeleton.named_modules() if output is not None and module is output]
    skip = {*(quantization.llm_int8_skip_modules or []), *_ALWAYS_SKIPPED, *head_names(skeleton), *outputs}
    quantization.llm_int8_skip_modules = sorted(skip)
    return quantization


def keep_differentiable(model: nn.Module) -> None:
    """Keep 4-bit layers from switching to bitsandbytes' CPU inference kernel; other layers are left alone.

    On CPUs with avx512_bf16, bitsandbytes 0.50 rewrites a layer's weights for that kernel at the first forward in eval
    mode and stays with it. It has no gradient, so from the first evaluation on nothing below would learn; it computes
    in bf16 whatever was asked for; and its weights cannot be turned back (their inverse forgets to transpose the
    scales).
    """
    for name, module in model.named_modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
            state = module.weight.quant_state
            assert not getattr(state, "packing_format_for_cpu", False), f"{name} ran in eval mode before it was loaded"
