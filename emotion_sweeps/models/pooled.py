"""A class head on the mean of any backbone's last hidden states, as a transformers model.

    pooled = sum(mask * hidden) / sum(mask),   logits = pooled @ W.T + b

No stock class pools by mean (BERT's takes the first token through a pooler), yet that is what sentence
encoders were trained with: MiniLM learns in one epoch with it and not at all with the first token. Pooling
and head run in fp32 (or the backbone's precision where that is higher), under autocast too. The loss is not
computed here. The model type is registered, so once this module is imported
`AutoModelForSequenceClassification` loads a folder that `PooledClassifier.save_pretrained` wrote.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_MAPPING


@strict
class PooledConfig(PreTrainedConfig):  # type: ignore[misc]
    """The backbone's config (`base_config`) with labels on top; the class head's own file format."""

    model_type = "emotion_sweeps_pooled"
    sub_configs_defaults = {"base_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    base_config: Any = None  # a PreTrainedConfig; a dict while it is read from a file
    pooling: str = "mean"

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The part that speaks of texts: the backbone's."""
        assert isinstance(self.base_config, PreTrainedConfig)
        return self.base_config.get_text_config(decoder=decoder, encoder=encoder)

    @property
    def hidden_size(self) -> int:
        """Width of the backbone's hidden states."""
        return int(self.get_text_config().hidden_size)


class PooledClassifier(PreTrainedModel):  # type: ignore[misc]
    """`backbone` (any AutoModel) -> mean over real tokens -> `classifier` (one linear layer)."""

    config_class = PooledConfig
    config: PooledConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _keep_in_fp32_modules = ["classifier"]
    _keep_in_fp32_modules_strict = ["classifier"]

    def __init__(self, config: PooledConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        if backbone is None:
            backbone = AutoModel.from_config(config.base_config, **pooler_options(config.base_config))
        else:
            _mark_initialized(backbone)
        self.backbone = backbone
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's token embeddings (gradient checkpointing hooks into them)."""
        return self.backbone.get_input_embeddings()  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the backbone's token embeddings."""
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self) -> None:
        """A classifier writes no tokens."""
        return None

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple[torch.Tensor]:
        """Logits of a batch of token rows.

        Args:
            input_ids: `(batch, seq)`; or `inputs_embeds` `(batch, seq, hidden)`.
            attention_mask: `(batch, seq)`, 1 for real tokens; left out, every token is real.
            labels: taken because Trainer and PEFT hand them over; the loss is the caller's business.

        Returns:
            Logits `(batch, num_labels)`; `loss` is always None.
        """
        given = {key: value for key, value in kwargs.items() if value is not None}
        outputs = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **given
        )
        logits = self._classify(outputs.last_hidden_state, attention_mask)
        if return_dict is False:
            return (logits,)
        return SequenceClassifierOutput(
            logits=logits, hidden_states=outputs.get("hidden_states"), attentions=outputs.get("attentions")
        )

    def _classify(self, hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        weight = self.classifier.weight
        with torch.autocast(device_type=hidden.device.type, enabled=False):
            pooled = mean_pool(hidden, attention_mask)
            logits: torch.Tensor = self.classifier(pooled.to(device=weight.device, dtype=weight.dtype))
        return logits


def mean_pool(hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Mean of `hidden` `(batch, seq, width)` over the tokens of mask 1, in fp32 or better: `(batch, width)`."""
    hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    if attention_mask is None:
        return hidden.mean(dim=1)
    mask = attention_mask.to(device=hidden.device, dtype=hidden.dtype).unsqueeze(-1)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def pooler_options(config: PreTrainedConfig) -> dict[str, bool]:
    """`add_pooling_layer=False` for backbones that know it: the mean needs no first-token pooler."""
    if type(config) not in MODEL_MAPPING:
        return {}
    accepted = inspect.signature(MODEL_MAPPING[type(config)].__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}


def _mark_initialized(backbone: nn.Module) -> None:
    """Keep `post_init` from drawing the loaded weights anew."""
    for module in backbone.modules():
        module._is_hf_initialized = True  # type: ignore[assignment]


AutoConfig.register(PooledConfig.model_type, PooledConfig)
AutoModelForSequenceClassification.register(PooledConfig, PooledClassifier)
