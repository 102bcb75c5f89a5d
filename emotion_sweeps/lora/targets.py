"""Which modules get an adapter: presets and explicit lists, resolved to module names that are really there.

PEFT's rule: an entry matches a module whose full name equals it or ends with "." + entry. A preset is first
turned into the set of full names (by layer type and by the role that its name shows), then into the shortest
suffixes that match exactly this set, so `dense` never reaches into RoBERTa's class head. The cost is a few
milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn
from transformers.pytorch_utils import Conv1D

from emotion_sweeps.errors import UserError, did_you_mean
from emotion_sweeps.models.heads import head_names
from emotion_sweeps.notices import notice_once

PRESETS = ("all-linear", "attention", "attention_mlp")

# Names by role over the architectures of the hub: Llama, Qwen and Gemma first, then BERT-likes, then the others.
_QUERY_VALUE = ("q_proj", "v_proj", "query", "value", "q_lin", "v_lin", "query_proj", "value_proj", "attn.q", "attn.v")
_FUSED_QUERY_VALUE = ("qkv_proj", "c_attn", "query_key_value", "Wqkv")
_ATTENTION_OUTPUT = (
    *("o_proj", "attention.output.dense", "out_lin", "attn.c_proj", "self_attn.out_proj", "attn.out_proj"),
    *("attention.dense", "self_attention.dense", "attn.Wo", "attn.o"),
)
_GATE = (
    *("gate_proj", "gate_up_proj", "intermediate.dense", "lin1", "mlp.c_fc", "mlp.Wi", "mlp.fc_in", "fc1", "ffn"),
    "dense_h_to_4h",
)
_LINEAR = (nn.Linear, Conv1D)  # bitsandbytes' Linear4bit is an nn.Linear
_ADAPTABLE = (*_LINEAR, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NOT_TEXT = {"vision_tower", "vision_model", "visual", "audio_tower", "multi_modal_projector"}


def resolve_targets(model: nn.Module, target_modules: str | Sequence[str]) -> list[str]:
    """Module-name suffixes for PEFT's `target_modules`, none of which matches the class head.

    Args:
        target_modules: "all-linear" (every linear layer of the backbone), "attention" (query and value),
            "attention_mlp" (query, value, attention output and gate, or what stands for them), or a list of
            names under PEFT's rule.

    Raises:
        UserError: the preset is unknown or has no counterpart here, or an entry of the list matches nothing.
    """
    if isinstance(target_modules, str):
        return _shortest_suffixes(_preset(model, target_modules), _names(model))
    for entry in target_modules:
        _check_entry(model, entry)
    matched = matched_modules(model, target_modules)
    if _matching(target_modules, _names(model)) == matched:
        return list(dict.fromkeys(target_modules))
    return _shortest_suffixes(matched, _names(model))  # an entry reaches into the head or a container: narrow it


def matched_modules(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Full names of the layers that `targets` match under PEFT's rule, the class head left out."""
    return _matching(targets, _adaptable(model))


def linear_names(model: nn.Module) -> list[str]:
    """Full names of the backbone's linear layers: no class head, no output embeddings, no vision or audio part."""
    output = model.get_output_embeddings()  # type: ignore[operator]
    return [
        name
        for name in _adaptable(model)
        if isinstance(module := model.get_submodule(name), _LINEAR)
        and module is not output
        and not _NOT_TEXT & set(name.split("."))
    ]


def _preset(model: nn.Module, preset: str) -> set[str]:
    """Full names of the layers that a preset stands for in this architecture."""
    if preset not in PRESETS:
        raise UserError(
            f"lora.target_modules={preset} is not one of {', '.join(PRESETS)}{did_you_mean(preset, PRESETS)}; "
            "give a preset, or a list such as [q_proj,v_proj]"
        )
    linear = linear_names(model)
    if preset == "all-linear":
        return set(linear)
    attention = _with_role(linear, _QUERY_VALUE) or _with_role(linear, _FUSED_QUERY_VALUE)
    if not attention:
        raise UserError(
            f"lora.target_modules={preset}: this architecture has no query and value layers known by name; take "
            f"all-linear, or a list out of {_listing(linear)}"
        )
    if preset == "attention":
        return attention
    roles = {"attention output": _with_role(linear, _ATTENTION_OUTPUT), "gate": _with_role(linear, _GATE)}
    for role, found in roles.items():
        if not found:
            notice_once(f"lora.target_modules=attention_mlp: no {role} layer known by name here; it gets no adapter")
    return attention.union(*roles.values())


def _check_entry(model: nn.Module, entry: str) -> None:
    """Refuse an entry that matches no layer outside the class head."""
    if matched_modules(model, [entry]):
        return
    hits = _matching([entry], _names(model))
    heads = head_names(model)
    why = "matches no module"
    if hits:
        in_head = all(name.split(".")[0] in heads for name in hits)
        why = "is part of the class head, which is trained in full" if in_head else "is no linear layer"
    linear = linear_names(model)
    near = did_you_mean(entry, {name.rsplit(".", 1)[-1] for name in linear})
    raise UserError(f"lora.target_modules: {entry} {why}{near}; the linear layers here are {_listing(linear)}")


def _adaptable(model: nn.Module) -> list[str]:
    """Full names of all modules that PEFT can put an adapter on, outside the class head."""
    heads = head_names(model)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _ADAPTABLE) and name.split(".")[0] not in heads
    ]


def _matching(targets: Sequence[str], names: Iterable[str]) -> list[str]:
    """Those of `names` that PEFT itself would match."""
    config = LoraConfig(target_modules=list(targets))
    return [name for name in names if check_target_module_exists(config, name)]


def _with_role(names: Iterable[str], suffixes: Sequence[str]) -> set[str]:
    return {name for name in names if any(name == suffix or name.endswith(f".{suffix}") for suffix in suffixes)}


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_modules() if name]


def _shortest_suffixes(targets: Collection[str], names: Sequence[str]) -> list[str]:
    """The shortest name suffixes that match all of `targets` and nothing else among `names`, sorted."""
    chosen: list[str] = []
    for target in sorted(targets):
        if _with_role([target], chosen):
            continue
        parts = target.split(".")
        suffixes = (".".join(parts[-depth:]) for depth in range(1, len(parts) + 1))
        chosen.append(next(suffix for suffix in suffixes if _with_role(names, [suffix]) <= set(targets)))
    return sorted(suffix for suffix in chosen if not _with_role([suffix], [c for c in chosen if c != suffix]))


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted({name.rsplit(".", 1)[-1] for name in names})) or "none"
