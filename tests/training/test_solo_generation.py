"""The generation engine against a plain PyTorch loop over PEFT, and its decoding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_kit import LABELS, Records
from torch import nn
from torch.nn import functional as F

from emotion_sweeps.data.batches import plan_epoch
from emotion_sweeps.training import checkpoints
from emotion_sweeps.training.decoding import generate_answers, terminators
from emotion_sweeps.training.generation_trainer import answer_metrics, parse_answers
from emotion_sweeps.training.rows import PromptRows
from emotion_sweeps.training.solo import train_generation

Make = Callable[..., Any]
END, FIRST_LABEL = 2, 50


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """One token a word: w5 is 5, and label 1 of three is w51."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<unk>": 1, "</s>": END} | {f"w{i}": i for i in range(3, 64)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )


def prompt_rows(count: int, seed: int = 0) -> PromptRows:
    """Prompts of 3 to 8 tokens; the answer names each label whose marker (5, 6, 7) stands in the prompt."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 3)) < 0.5).astype(np.uint8)
    prompts, answers = [], []
    for row in labels:
        filler = [int(t) for t in rng.integers(10, 40, rng.integers(3, 6))]
        prompts.append([*filler, *(5 + j for j in np.flatnonzero(row)), 9])
        answers.append([*(FIRST_LABEL + int(j) for j in np.flatnonzero(row)), END])
    return PromptRows([f"row{i}" for i in range(count)], prompts, answers, labels)


def parse(text: str) -> tuple[np.ndarray, bool]:
    row, words = np.zeros(3, np.uint8), text.split()
    known = [int(word[1:]) - FIRST_LABEL for word in words if word in {"w50", "w51", "w52"}]
    row[known] = 1
    return row, len(known) == len(words)


def answer_loss(model: nn.Module, rows: PromptRows, chosen: list[int]) -> torch.Tensor:
    """Mean over the answer tokens, one row at a time, without padding."""
    losses = []
    for i in chosen:
        prompt, answer = rows.prompt_ids[i], rows.answer_ids[i]
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        losses.append(F.cross_entropy(logits, torch.tensor(answer), reduction="none"))
    return torch.cat(losses).mean()


def plain_loop(model: nn.Module, rows: PromptRows, *, lr: float, batch: int, clip: float) -> list[tuple[float, float]]:
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=lr, weight_decay=0.01)
    lengths = [len(p) + len(a) for p, a in zip(rows.prompt_ids, rows.answer_ids, strict=True)]
    plan = [b for epoch in range(2) for b in plan_epoch(lengths, batch, seed=3, epoch=epoch)]
    trace = []
    model.train()
    for step, chosen in enumerate(plan):
        optimizer.param_groups[0]["lr"] = lr * (step / 2 if step < 2 else (len(plan) - step) / (len(plan) - 2))
        loss = answer_loss(model, rows, chosen)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trainable, clip)
        optimizer.step()
        optimizer.zero_grad()
        trace.append((loss.item(), norm.item()))
    return trace


@pytest.mark.parametrize("micro_batch_size", [8, 3])
def test_trainers_losses_are_a_plain_loops(
    make_generator: Make, settings: Make, records: Records, tokenizer: Any, micro_batch_size: int
) -> None:
    rows, validation, clip = prompt_rows(21), prompt_rows(10, 1), 0.5
    reference, engine = make_generator(seed=1), make_generator(seed=1)
    trace = plain_loop(reference, rows, lr=1e-2, batch=8, clip=clip)
    assert max(norm for _, norm in trace) > clip
    outcome = train_generation(
        engine,
        tokenizer,
        rows,
        validation,
        label_names=LABELS,
        parse=parse,
        **settings(max_grad_norm=clip, micro_batch_size=micro_batch_size),
    )
    found = [(r["loss"], r["grad_norm"]) for r in records.of("train")]
    np.testing.assert_allclose(found, trace, rtol=2e-5, atol=1e-6)
    assert records.of("train")[0]["head_learning_rate"] is None
    with torch.no_grad():
        expected = answer_loss(reference.eval(), validation, list(range(10)))
    assert outcome.final["metrics"]["loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_label_smoothing_is_torchs(make_generator: Make, settings: Make, records: Records, tokenizer: Any) -> None:
    rows = prompt_rows(8)
    train_generation(
        make_generator(),
        tokenizer,
        rows,
        rows,
        label_names=LABELS,
        parse=parse,
        label_smoothing=0.2,
        **settings(max_steps=1),
    )
    model, losses = make_generator(), []
    for prompt, answer in zip(rows.prompt_ids, rows.answer_ids, strict=True):
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        losses.append(F.cross_entropy(logits, torch.tensor(answer), label_smoothing=0.2, reduction="none"))
    assert records.of("train")[0]["loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)


def test_batched_decoding_is_greedy_decoding_one_by_one(make_generator: Make, tokenizer: Any) -> None:
    """Left padding, cache and sorted batches change nothing; every answer is at its prompt's place."""
    model, rows = make_generator().eval(), prompt_rows(9)
    options: dict[str, Any] = {"max_new_tokens": 5, "end_ids": [END], "device": torch.device("cpu")}
    batched = generate_answers(model, tokenizer, rows.prompt_ids, batch_size=4, **options)
    for prompt, answer in zip(rows.prompt_ids, batched, strict=True):
        ids = list(prompt)
        with torch.no_grad():
            while len(ids) < len(prompt) + 5 and (len(ids) == len(prompt) or ids[-1] != END):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert answer == tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


def test_answers_end_at_their_common_last_token_or_the_tokenizers() -> None:
    assert terminators([[7, 9], [9]], 2) == [2, 9]
    assert terminators([[7, 9], [8]], 2) == [2]
    assert terminators([[7, 9]], None) == [9]


def test_answers_that_cannot_be_read_are_counted() -> None:
    decoded = parse_answers(["w50", "w51 w9", "w52 w50", ""], parse)
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], np.uint8)
    metrics = answer_metrics(decoded, labels)
    assert metrics["invalid_answers"] == 0.25
    assert metrics["accuracy"] == 0.75


def test_what_trl_does_to_the_base_is_undone(make_generator: Make, settings: Make, tokenizer: Any) -> None:
    model, seen = make_generator(), []

    def after_init(given: nn.Module) -> None:
        seen.append(given)

    before = type(model.get_base_model()).forward
    rows = prompt_rows(8)
    train_generation(
        model, tokenizer, rows, rows, label_names=LABELS, parse=parse, after_init=after_init, **settings(max_steps=1)
    )
    assert seen == [model]
    assert model.get_base_model().forward.__func__ is before
    assert "forward" not in model.__dict__


def test_a_resumed_trial_ends_like_one_that_was_never_killed(
    make_generator: Make, settings: Make, records: Records, tokenizer: Any, tmp_path: Path
) -> None:
    rows, validation = prompt_rows(24), prompt_rows(12, 1)

    def train(**changes: Any) -> Any:
        return train_generation(
            make_generator(),
            tokenizer,
            rows,
            validation,
            prompt_rows(6, 2),
            label_names=LABELS,
            parse=parse,
            **settings(**changes),
        )

    def kill(record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 5:
            raise InterruptedError

    whole = train()
    with pytest.raises(InterruptedError):
        train(checkpoint_dir=tmp_path, on_record=kill)
    resumed = train(checkpoint_dir=tmp_path, resume_from=checkpoints.last_checkpoint(tmp_path))
    assert resumed.evaluations == whole.evaluations
    assert resumed.test_metrics == whole.test_metrics
    assert resumed.test.texts == whole.test.texts
    assert {p.name for p in (tmp_path / "checkpoint-6").iterdir()} >= {"trainable.safetensors", "progress.json"}


def test_the_answers_are_learned_by_heart(
    make_generator: Make, settings: Make, records: Records, tokenizer: Any
) -> None:
    """The frozen tied embeddings of a model this narrow cap its certainty, so the loss ends above zero."""
    rows = prompt_rows(32)
    outcome = train_generation(
        make_generator(width=32, r=16),
        tokenizer,
        rows,
        rows,
        rows,
        label_names=LABELS,
        parse=parse,
        **settings(epochs=30, learning_rate=2e-2, selection_metric="macro_f1", log_every=200, evals_per_epoch=0.1),
    )
    assert [e["epoch"] for e in outcome.evaluations] == [10.0, 20.0, 30.0]
    metrics = outcome.kept["metrics"]
    assert metrics["loss"] < 0.35
    assert metrics["macro_f1"] == metrics["accuracy"] == 1.0
    assert metrics["token_accuracy"] > 0.99 and metrics["invalid_answers"] == 0.0
    assert outcome.thresholds is None
    assert outcome.test is not None and outcome.test.texts == outcome.validation.texts
    np.testing.assert_array_equal(outcome.test.labels, rows.labels)
