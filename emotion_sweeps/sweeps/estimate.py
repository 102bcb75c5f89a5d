"""What a trial will hold in memory, and how much of it trains, from the architecture alone: no weight is loaded.

The base is built on torch's meta device and given its adapter by the same PEFT call as in training, so the parameter
counts are exact. Bytes:

    base         4 (fp32), 2 (bf16, fp16), 0.516 a quantised weight (NF4, double quantisation: 4 bits + 8/64 + 32/16384)
    trained      16 a parameter: fp32 weight, gradient and the two moments of AdamW
    activations  a token: each linear layer's output, each adapter's input, dropout mask (1, on a CPU 4) and r values,
                 4 a norm input; fused attention keeps nothing more, but a CPU has no fused one with dropout (BERT,
                 RoBERTa): 12 a pair of tokens and head. With gradient checkpointing one input a layer, and one layer

The activations are an estimate, held against what autograd saves to within 40 % (tests/sweeps/test_plan.py). About
0.3 s a model.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from emotion_sweeps.config.schema import TrainConf
    from emotion_sweeps.models.sources import ModelSource

GIB = float(2**30)
BASE_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
NF4_BYTES = 0.516
TRAINED_BYTES = 16.0
LOGIT_BYTES = 8.0  # a generator's logits in fp32 and their gradient, beside the base's own


@dataclass(frozen=True)
class Parameters:
    """Exact counts; `quantizable` are weights of linear layers in the backbone."""

    trainable: int
    total: int
    quantizable: int


@dataclass(frozen=True)
class Memory:
    """GiB on the device while training."""

    base: float
    trained: float
    activations: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.base + self.trained + self.activations


def skeleton(conf: TrainConf, source: ModelSource, *, kind: str, pooling: str, num_labels: int) -> Any:
    """The trial's model with its adapter, on the meta device.

    Raises:
        UserError: the base's config cannot be had, or the adapter does not fit it.
    """
    import torch

    from emotion_sweeps.lora.inject import add_adapter
    from emotion_sweeps.models.architecture import read_config

    config = read_config(source, conf.model.trust_remote_code)
    config.use_cache = False
    lora, generation = conf.lora, conf.task.name == "label_generation"
    with torch.device("meta"):
        if generation:
            model = _from_config("AutoModelForCausalLM", config, conf)
        elif pooling == "mean":
            model = _pooled(config, conf, num_labels)
        else:
            config.num_labels = num_labels
            model = _from_config("AutoModelForSequenceClassification", config, conf)
        return add_adapter(
            model,
            r=lora.r,
            alpha=lora.effective_alpha,
            dropout=lora.dropout,
            target_modules=lora.target_modules,
            use_rslora=lora.use_rslora,
            use_dora=lora.use_dora,
            bias=lora.bias,
            modules_to_save=lora.modules_to_save,
            task_type="CAUSAL_LM" if generation else "SEQ_CLS",
            base_reference=source.reference,
            seed=0,
        )


def _from_config(auto_class: str, config: Any, conf: TrainConf, **options: Any) -> PreTrainedModel:
    import transformers

    trust = conf.model.trust_remote_code
    model: PreTrainedModel = getattr(transformers, auto_class).from_config(
        copy.deepcopy(config), trust_remote_code=trust, **options
    )
    return model


def _pooled(config: Any, conf: TrainConf, num_labels: int) -> PreTrainedModel:
    from emotion_sweeps.models.pooled import PooledClassifier, PooledConfig, pooler_options

    backbone = _from_config("AutoModel", config, conf, **pooler_options(config))
    pooled = PooledConfig(base_config=copy.deepcopy(backbone.config))
    pooled.num_labels = num_labels
    return PooledClassifier(pooled, backbone)


def count_parameters(model: Any) -> Parameters:
    """Trainable, total and quantisable parameters of a skeleton, as PEFT counts them."""
    trainable, total = model.get_nb_trainable_parameters()
    quantizable = sum(layer.weight.numel() for _, layer in _backbone_linears(model))
    return Parameters(int(trainable), int(total), int(quantizable))


def estimate_memory(
    model: Any,
    *,
    precision: str,
    load_in_4bit: bool,
    micro_batch_size: int,
    max_length: int,
    dropout: float,
    gradient_checkpointing: bool,
    device: str,
) -> Memory:
    """GiB that training a skeleton takes, for batches of `micro_batch_size` texts at their longest.

    Args:
        precision: fp32, bf16 or fp16, of the base and of what a forward pass computes in.
        device: cpu or cuda.
    """
    count, width = count_parameters(model), BASE_BYTES[precision]
    quantized = count.quantizable if load_in_4bit else 0
    base = quantized * NF4_BYTES + (count.total - count.trainable - quantized) * width
    tokens = micro_batch_size * max_length
    mask = 0.0 if dropout == 0 else 4.0 if device == "cpu" else 1.0
    kept = _linear_bytes(model, width, mask) + (_attention_bytes(model, max_length) if device == "cpu" else 0.0)
    if gradient_checkpointing:
        kept = _checkpointed(model, kept, width)
    activations = tokens * (kept + _logit_bytes(model, width))
    return Memory(base / GIB, count.trainable * TRAINED_BYTES / GIB, activations / GIB)


def _linear_bytes(model: Any, width: float, mask: float) -> float:
    """Bytes a token that linear layers, adapters and norms keep for the backward pass."""
    kept = sum(layer.weight.shape[0] * width for _, layer in _backbone_linears(model))
    for module in model.modules():
        ranks = getattr(module, "r", None)
        if isinstance(ranks, dict) and hasattr(module, "in_features"):
            kept += module.in_features * (width + mask) + sum(ranks.values()) * width
        elif type(module).__name__.endswith("Norm"):
            kept += 4.0 * int(module.weight.shape[0])
    return float(kept)


def _attention_bytes(model: Any, length: int) -> float:
    """Bytes a token of attention that is not fused, because its weights are dropped out on a CPU."""
    config = _config(model)
    rates = (getattr(config, name, 0.0) for name in ("attention_probs_dropout_prob", "attention_dropout"))
    if not any(rates):
        return 0.0
    return float(config.num_hidden_layers * (12 * config.num_attention_heads * length + 16 * config.hidden_size))


def _checkpointed(model: Any, kept: float, width: float) -> float:
    layers, hidden = int(_config(model).num_hidden_layers), int(_config(model).hidden_size)
    return kept / layers + layers * hidden * width


def _logit_bytes(model: Any, width: float) -> float:
    generates = model.peft_config["default"].task_type == "CAUSAL_LM"
    return int(_config(model).vocab_size) * (width + LOGIT_BYTES) if generates else 0.0


def _config(model: Any) -> Any:
    return model.get_base_model().config.get_text_config()


def _backbone_linears(model: Any) -> list[tuple[str, Any]]:
    """The frozen linear layers, without the adapter's own, the class head and the output embeddings."""
    from torch import nn

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and "lora_" not in name
        and "modules_to_save" not in name
        and "original_module" not in name
    ]
