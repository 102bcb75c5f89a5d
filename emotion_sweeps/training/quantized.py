"""4-bit layers that stay differentiable on the CPU.

On CPUs with avx512_bf16, bitsandbytes 0.50 rewrites a layer's weights for its inference kernel at the first forward in
eval mode, and goes on using that kernel, which has no gradient, when training takes up again: from the first evaluation
on the layers below learn nothing. The kernel computes in bf16 whatever was asked for, needs row counts that 32 divides,
and its weights cannot be turned back (their inverse forgets to transpose the scales). So the layers are told not to.
"""

from __future__ import annotations

from torch import nn


def keep_differentiable(model: nn.Module) -> None:
    """Keep bitsandbytes' 4-bit layers from switching to their CPU inference kernel; other layers are left alone."""
    for name, module in model.named_modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
            state = module.weight.quant_state
            assert not getattr(state, "packing_format_for_cpu", False), (
                f"{name} ran in eval mode before keep_differentiable; load the base anew"
            )
