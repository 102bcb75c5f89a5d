"""Label generation in a pack: equal to PEFT with torch.optim.AdamW, and to the solo engine, decoding included."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from pack_kit import CONFIGS, Spec, generator_base, peft_twin, run_pack
from torch.nn import functional as F

from emotion_sweeps.data.batches import plan_epoch
from emotion_sweeps.training.packed.generation_task import GenerationTask
from emotion_sweeps.training.rows import PromptRows
from emotion_sweeps.training.schedules import make_schedule
from emotion_sweeps.training.solo import train_generation

END, FIRST_LABEL, LABELS = 2, 50, ["anger", "joy", "fear"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "<pad>": 1, "</s>": END} | {f"w{i}": i for i in range(3, 64)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )


def prompts(count: int, seed: int = 0) -> PromptRows:
    """Prompts whose markers (5, 6, 7) say the labels; answers are the labels' words and the end."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 3)) < 0.5).astype(np.uint8)
    asked, answers = [], []
    for row in labels:
        filler = [int(t) for t in rng.integers(10, 40, rng.integers(3, 7))]
        asked.append([*filler, *(5 + j for j in np.flatnonzero(row)), 9])
        answers.append([*(FIRST_LABEL + int(j) for j in np.flatnonzero(row)), END])
    return PromptRows([f"row{i}" for i in range(count)], asked, answers, labels)


def parse(text: str) -> tuple[np.ndarray, bool]:
    row, words = np.zeros(3, np.uint8), text.split()
    known = [int(word[1:]) - FIRST_LABEL for word in words if word in {"w50", "w51", "w52"}]
    row[known] = 1
    return row, len(known) == len(words)


def task_of(tokenizer: Any, *parts: PromptRows, label_smoothing: float = 0.0) -> GenerationTask:
    return GenerationTask(
        tokenizer,
        parts[0],
        parts[1],
        parts[2] if len(parts) > 2 else None,
        label_names=LABELS,
        parse=parse,
        label_smoothing=label_smoothing,
        eval_batch_size=8,
    )


SPECS = [
    Spec(r=4, learning_rate=2e-2, weight_decay=0.1, max_grad_norm=0.3),
    Spec(r=6, alpha=6, learning_rate=1e-2, scheduler="cosine", seed=5, global_batch_size=5),
    Spec(r=1, learning_rate=3e-2, use_rslora=True, max_grad_norm=None, global_batch_size=12),
]


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_generation_equals_a_plain_loop_over_peft(name: str, tokenizer: Any) -> None:
    base, train = generator_base(CONFIGS[name](), torch.float64), prompts(30)
    specs = [dataclasses.replace(spec, records=[], max_steps=12) for spec in SPECS]
    ended = run_pack(base, task_of(tokenizer, train, prompts(8, 1), label_smoothing=0.1), specs, num_slots=2)
    assert not ended.errors and ended.engine.counts.most_slots == 2
    lengths = [len(p) + len(a) for p, a in zip(train.prompt_ids, train.answer_ids, strict=True)]
    for token, spec in enumerate(specs):
        model = peft_twin(base, spec).train()
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(named.values(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
        schedule = make_schedule(spec.scheduler, num_steps=12, warmup=spec.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        batches: list[list[int]] = []
        while len(batches) < 12:
            epoch = len(batches) // -(-30 // spec.global_batch_size)
            batches += plan_epoch(lengths, spec.global_batch_size, seed=spec.seed, epoch=epoch)
        for step, batch in enumerate(batches[:12]):
            count, total = sum(len(train.answer_ids[row]) for row in batch), torch.zeros((), dtype=torch.float64)
            for row in batch:  # one row at a time: no padding at all
                whole = torch.tensor([[*train.prompt_ids[row], *train.answer_ids[row]]])
                logits = model(input_ids=whole).logits[0, len(train.prompt_ids[row]) - 1 : -1]
                wanted = torch.tensor(train.answer_ids[row])
                total = total + F.cross_entropy(logits, wanted, label_smoothing=0.1, reduction="sum") / count
            total.backward()
            torch.nn.utils.clip_grad_norm_(named.values(), spec.max_grad_norm or float("inf"))
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            record = next(r for r in spec.records if r["kind"] == "train" and r["step"] == step + 1)
            assert record["loss"] == pytest.approx(float(total.detach()), abs=1e-9)
            for n, p in named.items():
                assert torch.allclose(ended.trace[token][step][f"weights/{n}"], p, rtol=0, atol=1e-9), (token, step)


def test_generation_in_a_pack_is_generation_alone(tokenizer: Any) -> None:
    base, parts = generator_base(CONFIGS["qwen3"]()), (prompts(40), prompts(12, 1), prompts(9, 2))
    specs = [dataclasses.replace(spec, records=[]) for spec in SPECS]
    more = {"epochs": 3, "micro_batch_size": 4, "log_every": 2}
    packed = run_pack(base, task_of(tokenizer, *parts), specs, **more)
    for token, spec in enumerate(specs):
        twin = dataclasses.replace(spec, records=[])
        alone = train_generation(
            peft_twin(base, twin), tokenizer, *parts, label_names=LABELS, parse=parse, **twin.settings(**more)
        )
        mine = packed.outcomes[token]
        assert len(mine.evaluations) == len(alone.evaluations) == 3
        for one, other in zip(mine.evaluations, alone.evaluations, strict=True):
            assert one["metrics"] == pytest.approx(other["metrics"], rel=1e-3, abs=1e-5)
        assert mine.test_metrics == pytest.approx(alone.test_metrics, rel=1e-3, abs=1e-5)
        assert mine.validation.texts == alone.validation.texts and mine.test.texts == alone.test.texts
        assert any(text for text in mine.validation.texts or [])
        assert mine.per_label == alone.per_label and mine.thresholds is None
