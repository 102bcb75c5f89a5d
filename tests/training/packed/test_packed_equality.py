"""A trial in a pack is the trial alone: losses, adapters, heads and moments against PEFT with torch.optim.AdamW.

In fp64 on the CPU without dropout, 20 steps, trials that differ in rank, alpha, rsLoRA, learning rates, schedule,
weight decay, clipping, smoothing, class weights, batch size (so in accumulation) and seed (so in data order and first
weights).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pack_kit import CONFIGS, LABELS, Spec, head_base, head_task, peft_twin, rows, run_pack
from torch import Tensor

from emotion_sweeps.data.batches import plan_epoch, split_micro_batches
from emotion_sweeps.data.tokens import pad_batch
from emotion_sweeps.training.losses import multilabel_losses, singlelabel_losses
from emotion_sweeps.training.schedules import make_schedule

STEPS = 20
SPECS = [
    Spec(r=4, alpha=8, weight_decay=0.1, max_grad_norm=0.05),
    Spec(r=2, alpha=16, learning_rate=3e-3, scheduler="cosine", seed=4, loss_weight=[2.0, 1.0, 4.5], focal_gamma=2.0),
    Spec(r=7, alpha=7, use_rslora=True, head_learning_rate=1e-2, scheduler="polynomial", max_grad_norm=None),
    Spec(r=1, alpha=3, scheduler="constant", weight_decay=0.5, label_smoothing=0.1, global_batch_size=20),
    Spec(r=4, alpha=8, weight_decay=0.01, warmup=0.3, global_batch_size=13, seed=9),
]


def trained_alone(base: Any, spec: Spec, train: Any, *, multilabel: bool) -> list[dict[str, Tensor]]:
    """The trial with PEFT and torch's own optimizer: weights and moments after each step, and the loss."""
    model = peft_twin(base, spec).train()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    in_head = {name: "modules_to_save" in name for name in named}
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p],
                "lr": spec.head_learning_rate if in_head[name] else spec.learning_rate,
                "weight_decay": spec.weight_decay if p.ndim > 1 else 0.0,
            }
            for name, p in named.items()
        ]
    )
    schedule = make_schedule(spec.scheduler, num_steps=STEPS, warmup=spec.warmup)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    lengths = [len(row) for row in train.input_ids]
    batches: list[list[int]] = []
    while len(batches) < STEPS:
        epoch = len(batches) // -(-len(lengths) // spec.global_batch_size)
        batches += plan_epoch(lengths, spec.global_batch_size, seed=spec.seed, epoch=epoch)
    weight = None if spec.loss_weight is None else torch.tensor(spec.loss_weight).double()
    trace = []
    for batch in batches[:STEPS]:
        total = 0.0
        for micro in split_micro_batches(batch, 8):
            ids, mask = pad_batch([train.input_ids[row] for row in micro], 1)
            logits = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
            shape: Any = {"label_smoothing": spec.label_smoothing, "focal_gamma": spec.focal_gamma}
            labels = torch.from_numpy(train.labels[micro].astype(np.float64))
            if multilabel:
                losses = multilabel_losses(logits, labels, pos_weight=weight, **shape)
            else:
                losses = singlelabel_losses(logits, labels, class_weight=weight, **shape)
            loss = losses.sum() / len(batch)
            loss.backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(named.values(), spec.max_grad_norm or float("inf"))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        state = {"loss": torch.tensor(total, dtype=torch.float64), "norm": norm.detach()}
        for name, p in named.items():
            state[f"weights/{name}"] = p.detach().clone()
            state[f"exp_avg/{name}"] = optimizer.state[p]["exp_avg"].clone()
            state[f"exp_avg_sq/{name}"] = optimizer.state[p]["exp_avg_sq"].clone()
        trace.append(state)
    return trace


def assert_equal(ended: Any, base: Any, train: Any, *, multilabel: bool = True, specs: list[Spec]) -> None:
    assert not ended.errors
    for token, spec in enumerate(specs):
        alone, packed = trained_alone(base, spec, train, multilabel=multilabel), ended.trace[token]
        records = [record for record in spec.records if record["kind"] == "train"]
        assert len(packed) == len(alone) == len(records) == STEPS
        for number, (mine, wanted, record) in enumerate(zip(packed, alone, records, strict=True)):
            for name, value in mine.items():
                assert torch.allclose(value, wanted[name], rtol=0, atol=1e-9), (token, number, name)
            assert record["loss"] == pytest.approx(float(wanted["loss"]), abs=1e-9)
            if spec.max_grad_norm is not None:
                assert record["grad_norm"] == pytest.approx(float(wanted["norm"]), rel=1e-7)
        assert any((value != alone[0][name]).any() for name, value in packed[-1].items() if "lora_A" in name)


def fresh(specs: list[Spec], **changes: Any) -> list[Spec]:
    import dataclasses

    return [dataclasses.replace(spec, records=[], max_steps=STEPS, **changes) for spec in specs]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("multilabel", [True, False])
def test_trials_of_a_pack_equal_the_same_trials_alone(name: str, multilabel: bool) -> None:
    base, train = head_base(CONFIGS[name](), torch.float64), rows(60, multilabel=multilabel)
    specs = fresh(SPECS)
    ended = run_pack(base, head_task(train, rows(12, 1), multilabel=multilabel), specs)
    assert ended.engine.counts.most_slots == len(specs)
    assert_equal(ended, base, train, multilabel=multilabel, specs=specs)


def test_trials_that_begin_late_equal_the_same_trials_alone() -> None:
    """Two slots for five trials: later ones share passes with texts of other lengths."""
    base, train = head_base(CONFIGS["roberta"](), torch.float64), rows(60)
    specs = fresh(SPECS)
    ended = run_pack(base, head_task(train, rows(12, 1)), specs, num_slots=2)
    assert ended.engine.counts.most_slots == 2
    assert_equal(ended, base, train, specs=specs)


def test_the_reference_moves_every_kind_of_weight() -> None:
    """Guards the tests above: the trials learn, and differ from each other."""
    base, train = head_base(CONFIGS["roberta"](), torch.float64), rows(60)
    traces = [trained_alone(base, spec, train, multilabel=True) for spec in fresh(SPECS[:2])]
    for trace in traces:
        moved = {name for name in trace[0] if "weights/" in name and not torch.equal(trace[0][name], trace[-1][name])}
        assert {name.rpartition(".")[0].split(".")[-2] for name in moved} >= {"lora_A", "lora_B"} or moved
        assert any("out_proj.weight" in name for name in moved) and any("dense.bias" in name for name in moved)
        assert float(trace[-1]["loss"]) < float(trace[0]["loss"])
    assert len(LABELS) == 3
