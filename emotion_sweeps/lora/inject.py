"""Put a LoRA adapter on a frozen base:  W x + scaling * B A x,  scaling = alpha / r (alpha / sqrt(r) with rsLoRA).

PEFT does the work; this adds what is easily missed. The adapter is drawn from its own seed, whatever was
drawn before. Everything that trains is fp32, on a bf16 or 4-bit base too. The class head is trained and saved
in full. `fan_in_fan_out` follows from the layers that are really targeted. The saved config names the base by
reference, never by a path of this machine. LoRA: arXiv 2106.09685; rsLoRA: 2312.03732; DoRA: 2402.09353.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from emotion_sweeps.errors import UserError, did_you_mean
from emotion_sweeps.lora.targets import matched_modules, resolve_targets
from emotion_sweeps.models.heads import head_names
from emotion_sweeps.models.rng import seeded


def add_adapter(
    model: PreTrainedModel,
    *,
    r: int,
    alpha: float,
    dropout: float,
    target_modules: str | Sequence[str],
    use_rslora: bool,
    use_dora: bool,
    bias: str,
    modules_to_save: Sequence[str],
    task_type: str,
    base_reference: str,
    seed: int,
    init_lora_weights: bool | str = True,
    revision: str | None = None,
) -> PeftModel:
    """Freeze `model` and put a LoRA adapter on it, in place.

    Args:
        target_modules: a preset or a list, see `resolve_targets`.
        bias: "none", "all" or "lora_only"; the last two train the base's own biases and need an fp32 base.
        modules_to_save: trained and saved in full beside the class head.
        task_type: "SEQ_CLS" or "CAUSAL_LM".
        base_reference: the base's name for the adapter's config (`ModelSource.reference`).
        seed: of the adapter's first weights; equal seeds give equal adapters.

    Raises:
        UserError: a target or a module to save matches nothing, or `bias` does not fit the base's precision.
    """
    targets = resolve_targets(model, target_modules)
    saved = _saved_modules(model, modules_to_save)
    _check_bias(model, bias)
    config = LoraConfig(
        r=r,
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,
        lora_dropout=dropout,
        target_modules=targets,
        use_rslora=use_rslora,
        use_dora=use_dora,
        bias=bias,
        modules_to_save=list(saved) or None,
        task_type=TaskType(task_type),
        fan_in_fan_out=_fan_in_fan_out(model, targets),
        init_lora_weights=init_lora_weights,
        revision=revision,
    )
    with seeded(seed), quiet_peft():
        peft_model = get_peft_model(model, config, revision=revision)
    config.base_model_name_or_path = base_reference
    config.modules_to_save = saved or None  # PEFT adds both usual head names, present or not
    ensure_fp32_trainable(peft_model)
    return peft_model


def ensure_fp32_trainable(model: nn.Module) -> None:
    """Cast every trainable parameter below fp32 to fp32, keeping the Parameter objects.

    Call it again after a trainer that casts adapters (TRL's SFTTrainer turns those on a 4-bit base to bf16 when it
    is built): PEFT reloads them in fp32, and the two would not agree.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.to(torch.float32)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without the deprecation warning that PEFT sets off in transformers; nobody here can act on it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def _saved_modules(model: PreTrainedModel, wanted: Sequence[str]) -> list[str]:
    """The class head and the user's own modules, each of which must be there."""
    names = [name for name, _ in model.named_modules() if name]
    for entry in wanted:
        if not any(name == entry or name.endswith(f".{entry}") for name in names):
            top = {name.rsplit(".", 1)[-1] for name in names}
            raise UserError(
                f"lora.modules_to_save: {entry} matches no module{did_you_mean(entry, top)}; give module names of the "
                "base such as embed_tokens"
            )
    return list(dict.fromkeys([*head_names(model), *wanted]))


def _check_bias(model: PreTrainedModel, bias: str) -> None:
    """Biases train in place, inside layers that compute in the base's dtype: that has to be fp32."""
    if bias != "none" and any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters()):
        raise UserError(
            f"lora.bias={bias} trains biases of the base, which must be fp32 then; set hardware.precision=fp32 or "
            "lora.bias=none"
        )


def _fan_in_fan_out(model: PreTrainedModel, targets: Sequence[str]) -> bool:
    """True where the targeted layers store their weights as (in, out), which only GPT-2's Conv1D does."""
    return any(isinstance(model.get_submodule(name), Conv1D) for name in matched_modules(model, targets))
