"""Packed layers on real architectures: forward and gradients against PEFT, slots, resizing, what cannot be packed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pack_kit import CONFIGS, Spec, head_base, peft_twin
from torch import nn
from transformers import BertConfig, DebertaV2Config, DistilBertConfig, GPT2Config

from emotion_sweeps.lora.packed_model import (
    PackedModel,
    base_twin,
    head_drawn_from,
    redraw_head,
    scaling_of,
    unpackable,
)
from emotion_sweeps.lora.targets import resolve_targets
from emotion_sweeps.models.heads import draw_head, head_names
from emotion_sweeps.training.checkpoints import load_weights, trainable_weights

SMALL: dict[str, Any] = {"vocab_size": 64, "num_labels": 3, "pad_token_id": 1}
MORE: dict[str, Any] = {
    "bert": lambda: BertConfig(
        **SMALL, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    ),
    "distilbert": lambda: DistilBertConfig(**SMALL, dim=16, n_layers=1, n_heads=2, hidden_dim=24),
    "deberta": lambda: DebertaV2Config(
        **SMALL, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, pooler_hidden_size=16
    ),
    "gpt2": lambda: GPT2Config(**SMALL, n_embd=16, n_layer=1, n_head=2, n_positions=40),
}
SPECS = [Spec(r=3, alpha=5, seed=1), Spec(r=6, alpha=6, use_rslora=True, seed=2)]


def filled(model: Any, seed: int) -> dict[str, torch.Tensor]:
    """A trial's weights with a B that is not zero, put into its PEFT model."""
    generator = torch.Generator().manual_seed(seed)
    weights = {n: w + 0.1 * torch.randn(w.shape, generator=generator) for n, w in trainable_weights(model).items()}
    load_weights(model, weights)
    return {name: value.to(model.dtype) for name, value in weights.items()}


def batch(rows: int, width: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (rows, width), generator=generator)
    mask = torch.ones_like(ids)
    ids[1, -2:], mask[1, -2:] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def packed_and_alone(config: Any) -> tuple[PackedModel, list[Any], Any]:
    base = head_base(config, torch.float64)
    pack = PackedModel(base, resolve_targets(base, "all-linear"), num_slots=2, max_rank=7, dtype=torch.float64)
    models = []
    for slot, spec in enumerate(SPECS):
        models.append(peft_twin(base, spec).eval())
        weights = filled(models[-1], slot)
        pack.load(slot, weights, scaling=scaling_of(spec.r, spec.alpha, spec.use_rslora), dropout=0.0)
    return pack, models, base


@pytest.mark.filterwarnings("ignore:grad and param do not obey")
@pytest.mark.parametrize("name", [*CONFIGS, *MORE])
def test_logits_and_gradients_are_pefts(name: str) -> None:
    pack, models, _ = packed_and_alone({**CONFIGS, **MORE}[name]())
    inputs = [batch(3, 8, 0), batch(3, 8, 1)]
    both = {key: torch.cat([one[key] for one in inputs]) for key in inputs[0]}
    with pack.using() as model:
        logits = model(**both).logits
    (logits**2).sum().backward()
    for slot, (spec, peft) in enumerate(zip(SPECS, models, strict=True)):
        wanted = peft(**inputs[slot]).logits
        torch.testing.assert_close(logits[3 * slot : 3 * slot + 3], wanted, rtol=0, atol=1e-12)
        (wanted**2).sum().backward()
        mine = pack.store.read(slot, spec.r, "gradients")
        gradients = {n: p.grad for n, p in peft.named_parameters() if p.requires_grad}
        assert set(mine) == set(gradients)
        for parameter, value in gradients.items():
            torch.testing.assert_close(mine[parameter], value, rtol=0, atol=1e-10)
        assert pack.store.padding_is_zero(slot, spec.r)


def test_some_slots_can_take_part_alone_and_survive_resizing() -> None:
    pack, models, _ = packed_and_alone(CONFIGS["roberta"]())
    inputs = batch(3, 8, 0)
    wanted = models[1](**inputs).logits
    with torch.no_grad(), pack.using([1]) as model:
        torch.testing.assert_close(model(**inputs).logits, wanted, rtol=0, atol=1e-12)
    pack.resize([None, 1, 0], max_rank=9)
    assert (pack.num_slots, pack.max_rank) == (3, 9)
    with torch.no_grad(), pack.using([1]) as model:
        torch.testing.assert_close(model(**inputs).logits, wanted, rtol=0, atol=1e-12)


def test_a_twin_shares_the_bases_weights_and_none_of_its_modules() -> None:
    base = head_base(CONFIGS["roberta"]())
    twin = base_twin(base)
    assert all(a is b for a, b in zip(base.parameters(), twin.parameters(), strict=True))
    assert not {id(m) for m in base.modules()} & {id(m) for m in twin.modules()}
    redraw_head(twin, 5, {name for name, _ in base.named_parameters() if name.startswith("classifier")})
    assert not torch.equal(twin.classifier.dense.weight, base.classifier.dense.weight)
    assert twin.roberta.embeddings.word_embeddings.weight is base.roberta.embeddings.word_embeddings.weight


def test_the_checkpoints_part_of_a_head_is_told_from_the_drawn_one() -> None:
    base = head_base(CONFIGS["roberta"]())
    kept = {"classifier.dense.weight", "classifier.dense.bias"}
    nn.init.normal_(base.classifier.dense.bias)
    draw_head(base, 4, kept)
    drawn = head_drawn_from(base, 4)
    assert drawn == {"classifier.out_proj.weight", "classifier.out_proj.bias"}
    twin, again = base_twin(base), base_twin(base)
    redraw_head(twin, 9, drawn)
    redraw_head(again, 4, drawn)
    assert torch.equal(twin.classifier.dense.weight, base.classifier.dense.weight)
    assert not torch.equal(twin.classifier.out_proj.weight, base.classifier.out_proj.weight)
    assert torch.equal(again.classifier.out_proj.weight, base.classifier.out_proj.weight)


def test_what_cannot_be_packed_says_why() -> None:
    base = head_base(CONFIGS["roberta"]())
    assert unpackable(base, resolve_targets(base, "all-linear")) is None
    assert "packs adapt linear layers alone" in str(unpackable(base, ["word_embeddings"]))
    base.classifier.dense = nn.Conv1d(16, 16, 1)
    assert "classifier.dense is a Conv1d" in str(unpackable(base, resolve_targets(base, "all-linear")))
    assert head_names(base) == ["classifier"]
