"""Attention for packs whose base has attention dropout: the mask comes from the trials' own streams.

Fused kernels draw their dropout inside from the global generator, over all rows at once. Registered with
transformers under `NAME`; without dropout (evaluation, decoders) the call goes on to sdpa unchanged. With it the
scores are held in memory, `(rows, heads, seq, seq)`, which for short texts is little.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from emotion_sweeps.lora.packed_layers import PackState

NAME = "emotion_sweeps_packed"
_RATES = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop", "attn_dropout")
_MARK = "_emotion_sweeps_pack"  # on attention modules: the pack's state and the module's name


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface; query, key, value `(rows, heads, seq, width)`."""
    if not dropout:
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=0.0, scaling=scaling, is_causal=is_causal, **kwargs
        )
        return out
    state, name = module.__dict__[_MARK]
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = _masked(scores, attention_mask, getattr(module, "is_causal", True) if is_causal is None else is_causal)
    weights = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    stacked = weights.view(state.num_trials, -1, *weights.shape[1:])
    weights = state.dropped(stacked, name, [dropout] * len(stacked)).view_as(weights)
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


def _masked(scores: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    if mask is None:
        if not is_causal or scores.shape[-2] == 1:
            return scores
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask


def use_packed_attention(model: PreTrainedModel, state: PackState) -> None:
    """Let `model` attend through `packed_attention` where its config has attention dropout; else leave it."""
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    if not any(getattr(config.get_text_config(), rate, 0.0) for config in configs.values() for rate in _RATES):
        return
    for config in configs.values():
        if config._attn_implementation in ("sdpa", "eager"):
            config._attn_implementation = NAME
    for name, module in model.named_modules():
        module.__dict__[_MARK] = (state, f"{name}.attention")


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
