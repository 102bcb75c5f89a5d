"""The head engine against a plain PyTorch loop over PEFT, and what it promises: stops, bests, resume, seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_kit import Records
from torch import nn
from torch.nn import functional as F

from emotion_sweeps.data.batches import plan_epoch
from emotion_sweeps.data.tokens import pad_batch
from emotion_sweeps.errors import UserError
from emotion_sweeps.training import checkpoints
from emotion_sweeps.training.losses import class_weight_from_labels
from emotion_sweeps.training.progress import DivergedError
from emotion_sweeps.training.rows import TextRows
from emotion_sweeps.training.solo import train_head

Make = Callable[..., Any]


def forward(model: nn.Module, rows: list[list[int]]) -> torch.Tensor:
    input_ids, mask = (torch.from_numpy(array) for array in pad_batch(rows, 1))
    return model(input_ids=input_ids, attention_mask=mask).logits


def plain_loop(
    model: nn.Module, rows: TextRows, *, lr: float, head_lr: float, epochs: int, batch: int, clip: float, decay: float
) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step: one forward a global batch, torch's AdamW, linear with 2 warm-up steps."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p], "lr": head_lr if "classifier" in name else lr, "weight_decay": decay if p.ndim > 1 else 0.0}
        for name, p in trainable
    ]
    optimizer = torch.optim.AdamW(groups)
    lengths = [len(row) for row in rows.input_ids]
    plan = [b for epoch in range(epochs) for b in plan_epoch(lengths, batch, seed=3, epoch=epoch)]
    peaks = [group["lr"] for group in optimizer.param_groups]
    trace = []
    model.train()
    for step, chosen in enumerate(plan):
        share = step / 2 if step < 2 else (len(plan) - step) / (len(plan) - 2)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share
        logits = forward(model, [rows.input_ids[i] for i in chosen])
        loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(rows.labels[chosen]).float())
        loss.backward()
        norm = nn.utils.clip_grad_norm_([p for _, p in trainable], clip)
        optimizer.step()
        optimizer.zero_grad()
        trace.append((loss.item(), norm.item()))
    return trace


@pytest.mark.parametrize("micro_batch_size", [8, 3])
def test_trainers_losses_are_a_plain_loops(
    make_head: Make,
    make_rows: Make,
    settings: Make,
    head_options: dict[str, Any],
    records: Records,
    micro_batch_size: int,
) -> None:
    """21 rows in batches of 8: the last global batch of an epoch has 5, in micro-batches of 3 and 2."""
    rows, clip = make_rows(21), 0.3
    reference, engine = make_head(seed=1), make_head(seed=1)
    trace = plain_loop(reference, rows, lr=1e-2, head_lr=2e-2, epochs=2, batch=8, clip=clip, decay=0.01)
    assert max(norm for _, norm in trace) > clip  # clipping is at work
    outcome = train_head(
        engine,
        rows,
        make_rows(20, 1),
        **head_options,
        **settings(max_grad_norm=clip, micro_batch_size=micro_batch_size),
    )
    train = records.of("train")
    np.testing.assert_allclose([(r["loss"], r["grad_norm"]) for r in train], trace, rtol=1e-5, atol=1e-6)
    weights = checkpoints.trainable_weights(reference)
    if outcome.kept["step"] == outcome.final["step"]:
        for name, value in checkpoints.trainable_weights(engine).items():
            torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        logits = forward(reference.eval(), make_rows(20, 1).input_ids)
    expected = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(make_rows(20, 1).labels).float())
    assert outcome.final["metrics"]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_sixteen_at_once_or_four_by_four_is_the_same(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any]
) -> None:
    outcomes = []
    for micro in (16, 4):
        options = settings(global_batch_size=16, micro_batch_size=micro, epochs=2)
        outcomes.append(train_head(make_head(), make_rows(40), make_rows(20, 1), **head_options, **options))
    whole, cut = (np.array([e["metrics"]["loss"] for e in o.evaluations]) for o in outcomes)
    np.testing.assert_allclose(cut, whole, rtol=1e-5)


def test_predictions_come_in_the_order_of_the_rows(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any]
) -> None:
    model, validation, test = make_head(), make_rows(30, 1), make_rows(17, 2)
    outcome = train_head(model, make_rows(40), validation, test, **head_options, **settings())
    assert not model.training
    assert outcome.test is not None and outcome.test_metrics is not None
    for rows, predictions in ((validation, outcome.validation), (test, outcome.test)):
        with torch.no_grad():
            alone = torch.cat([forward(model, [row]) for row in rows.input_ids]).sigmoid().numpy()
        np.testing.assert_allclose(predictions.probabilities, alone, atol=1e-5)
        assert predictions.ids == rows.ids
    assert outcome.thresholds is not None
    np.testing.assert_array_equal(outcome.test.labels, outcome.test.probabilities >= np.array(outcome.thresholds))


def test_records_tell_steps_rates_and_evaluations(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any], records: Records
) -> None:
    outcome = train_head(
        make_head(), make_rows(40), make_rows(20, 1), **head_options, **settings(log_every=4, evals_per_epoch=2)
    )
    assert [r["step"] for r in records.of("train")] == [3, 4, 5, 8, 10]  # every 4, and at evaluations
    assert [r["step"] for r in records.of("eval")] == [3, 5, 8, 10]
    assert all(r["split"] == "validation" and r["macro_f1"] >= 0 for r in records.of("eval"))
    last = records.of("train")[-1]
    assert last["epoch"] == 2.0
    assert last["learning_rate"] == pytest.approx(1e-2 / 8)
    assert last["head_learning_rate"] == pytest.approx(2e-2 / 8)
    assert [m["phase"] for m in outcome.memory] == ["evaluate"] * 4 + ["train", "predict"]
    assert all(m["peak_gib"] >= max(m["before_gib"], m["after_gib"]) > 0 for m in outcome.memory)
    json.dumps(records.all)


def test_a_single_label_head_trains_by_torchs_cross_entropy(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any], records: Records
) -> None:
    rows = make_rows(24, multilabel=False)
    options = head_options | {"multilabel": False, "weighting": "sqrt", "label_smoothing": 0.1}
    with torch.no_grad():
        logits = forward(make_head().eval(), rows.input_ids)
    weights = class_weight_from_labels(rows.labels, "sqrt")
    assert weights is not None
    targets = torch.from_numpy(rows.labels.argmax(1))
    losses = F.cross_entropy(logits, targets, weight=torch.from_numpy(weights), label_smoothing=0.1, reduction="none")
    outcome = train_head(
        make_head(),
        rows,
        rows,
        **options,
        **settings(epochs=40, global_batch_size=24, selection_metric="macro_f1", learning_rate=2e-2),
    )
    assert records.of("train")[0]["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert outcome.thresholds is None
    assert (outcome.validation.labels.sum(1) == 1).all()
    assert outcome.kept["metrics"]["accuracy"] > 0.9


def test_weighting_changes_the_training_loss_but_not_how_it_is_evaluated(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any], records: Records
) -> None:
    """A learning rate of next to nothing keeps the model where it is."""
    rows = make_rows(40)
    losses = {}
    for weighting in ("none", "balanced"):
        options = head_options | {"head_learning_rate": 1e-12, "weighting": weighting}
        outcome = train_head(make_head(), rows, rows, **options, **settings(learning_rate=1e-12, max_steps=5))
        train = np.mean([r["loss"] for r in records.of("train")[-5:]])
        losses[weighting] = (train, outcome.kept["metrics"]["loss"])
    assert losses["balanced"][0] > losses["none"][0] * 1.05
    assert losses["balanced"][1] == pytest.approx(losses["none"][1], rel=1e-6)
    assert losses["none"][0] == pytest.approx(losses["none"][1], rel=1e-5)


def test_the_kept_weights_are_those_of_the_best_evaluation(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any]
) -> None:
    """A high constant learning rate on few rows: validation loss turns up, F1 at one half has its best elsewhere."""
    validation, kept = make_rows(40, 1), {}
    for metric in ("loss", "macro_f1_at_half"):
        model = make_head()
        outcome = train_head(
            model,
            make_rows(24),
            validation,
            **head_options,
            **settings(epochs=8, learning_rate=3e-2, scheduler="constant", selection_metric=metric),
        )
        values = [e["metrics"][metric] for e in outcome.evaluations]
        best = (min if metric == "loss" else max)(values)
        assert outcome.selection["value"] == best == outcome.kept["metrics"][metric]
        assert outcome.best["loss"]["value"] == min(e["metrics"]["loss"] for e in outcome.evaluations)
        assert outcome.best["macro_f1"]["value"] == max(e["metrics"]["macro_f1"] for e in outcome.evaluations)
        with torch.no_grad():
            probabilities = forward(model, validation.input_ids).sigmoid().numpy()
        np.testing.assert_allclose(outcome.validation.probabilities, probabilities, atol=1e-5)
        kept[metric] = outcome.kept["step"]
        assert outcome.final["step"] == 24
    assert kept["loss"] < 24 and kept["loss"] != kept["macro_f1_at_half"]


def test_early_stopping_counts_evaluations_without_a_better_metric(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any]
) -> None:
    outcome = train_head(
        make_head(),
        make_rows(24),
        make_rows(40, 1),
        make_rows(10, 2),
        **head_options,
        **settings(epochs=30, learning_rate=3e-2, scheduler="constant", early_stopping_patience=2),
    )
    assert outcome.status == "stopped early" and not outcome.pruned
    assert outcome.num_steps == outcome.kept["step"] + 2 * 3 < 90
    assert outcome.test is not None


def test_should_stop_prunes_after_an_evaluation(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any], records: Records
) -> None:
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(records.of("eval")[-1]["step"])
        return len(asked) == 2

    outcome = train_head(
        make_head(),
        make_rows(24),
        make_rows(20, 1),
        make_rows(9, 2),
        **head_options,
        **settings(epochs=4, should_stop=should_stop),
    )
    assert asked == [3, 6]
    assert outcome.pruned and outcome.num_steps == 6
    assert outcome.test is None and outcome.test_metrics is None


def test_a_trial_at_its_last_step_is_done_not_pruned(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any]
) -> None:
    outcome = train_head(
        make_head(), make_rows(24), make_rows(20, 1), **head_options, **settings(epochs=1, should_stop=lambda: True)
    )
    assert outcome.status == "done"


class PoisonedAt(nn.Module):
    """Gives NaN logits from the nth training forward on."""

    def __init__(self, model: nn.Module, at: int) -> None:
        super().__init__()
        self.model, self.at, self.calls = model, at, 0

    def forward(self, **inputs: Any) -> Any:
        outputs = self.model(**inputs)
        self.calls += self.training
        if self.training and self.calls >= self.at:
            outputs.logits = outputs.logits * float("nan")
        return outputs


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_diverged_trial_says_at_which_step(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any], log_every: int
) -> None:
    model = PoisonedAt(make_head(), at=3)
    with pytest.raises(DivergedError, match="^training diverged: loss is nan at step 3; lower lora.learning_rate$"):
        train_head(model, make_rows(64), make_rows(9, 1), **head_options, **settings(log_every=log_every))


def test_equal_seeds_give_equal_runs_and_others_do_not(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any], records: Records
) -> None:
    """With dropout, so that its stream is held too."""
    traces = []
    for seed in (3, 3, 4):
        records.all.clear()
        train_head(
            make_head(seed=seed, dropout=0.2),
            make_rows(40),
            make_rows(9, 1),
            **head_options,
            **settings(seed=seed, epochs=1),
        )
        traces.append([r["loss"] for r in records.of("train")])
    assert traces[0] == traces[1]
    assert all(a != b for a, b in zip(traces[0], traces[2], strict=True))


def test_what_was_drawn_before_does_not_matter(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any]
) -> None:
    losses = []
    for draws in (0, 7):
        model = make_head(dropout=0.2)
        torch.rand(draws)
        outcome = train_head(model, make_rows(40), make_rows(9, 1), **head_options, **settings(epochs=1))
        losses.append(outcome.final["metrics"]["loss"])
    assert losses[0] == losses[1]


class Killed(Exception):
    """Stands for the process's end."""


@pytest.mark.parametrize("evals_per_epoch, killed_at", [(1, 5), (2, 8)])
def test_a_resumed_trial_ends_like_one_that_was_never_killed(
    make_head: Make,
    make_rows: Make,
    settings: Make,
    head_options: dict[str, Any],
    records: Records,
    tmp_path: Path,
    evals_per_epoch: int,
    killed_at: int,
) -> None:
    """Killed after the epoch's end or in the middle of it, with dropout, selection and schedule in force."""
    rows, validation, test = make_rows(40), make_rows(30, 1), make_rows(20, 2)

    def train(**changes: Any) -> Any:
        options = settings(epochs=3, learning_rate=3e-2, evals_per_epoch=evals_per_epoch) | changes
        return train_head(make_head(dropout=0.2), rows, validation, test, **head_options, **options)

    whole = train()
    uninterrupted = [r for r in records.all if r["kind"] in ("train", "eval")]
    records.all.clear()

    def kill(record: dict[str, Any]) -> None:
        records(record)
        if record["kind"] == "train" and record["step"] == killed_at + 1:
            raise Killed

    with pytest.raises(Killed):
        train(checkpoint_dir=tmp_path, on_record=kill)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{killed_at}"]
    records.all.clear()
    resumed = train(checkpoint_dir=tmp_path, resume_from=checkpoints.last_checkpoint(tmp_path))
    assert resumed.evaluations == whole.evaluations
    assert resumed.best == whole.best and resumed.kept == whole.kept
    assert resumed.test_metrics == whole.test_metrics and resumed.thresholds == whole.thresholds
    np.testing.assert_array_equal(resumed.validation.probabilities, whole.validation.probabilities)
    untimed = [{k: v for k, v in r.items() if k != "time_s"} for r in records.all if r["kind"] in ("train", "eval")]
    assert untimed == [{k: v for k, v in r.items() if k != "time_s"} for r in uninterrupted if r["step"] > killed_at]


def test_a_finished_trial_is_not_trained_again(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any], records: Records, tmp_path: Path
) -> None:
    options = settings(checkpoint_dir=tmp_path, learning_rate=3e-2, epochs=4)
    first = train_head(make_head(), make_rows(24), make_rows(20, 1), **head_options, **options)
    assert len(list(tmp_path.iterdir())) == 1
    records.all.clear()
    last = checkpoints.last_checkpoint(tmp_path)
    again = train_head(make_head(), make_rows(24), make_rows(20, 1), **head_options, **options, resume_from=last)
    assert not records.of("train") and not records.of("eval")
    assert again.evaluations == first.evaluations and again.kept == first.kept
    np.testing.assert_allclose(again.validation.probabilities, first.validation.probabilities, atol=1e-6)


def test_a_checkpoint_of_another_selection_metric_is_refused(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any], tmp_path: Path
) -> None:
    train_head(make_head(), make_rows(24), make_rows(9, 1), **head_options, **settings(checkpoint_dir=tmp_path))
    options = settings(resume_from=checkpoints.last_checkpoint(tmp_path), selection_metric="macro_f1")
    with pytest.raises(UserError, match="training.selection_metric=macro_f1"):
        train_head(make_head(), make_rows(24), make_rows(9, 1), **head_options, **options)


def test_max_steps_replaces_epochs(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any]
) -> None:
    for max_steps in (2, 11):
        outcome = train_head(
            make_head(), make_rows(24), make_rows(9, 1), **head_options, **settings(max_steps=max_steps)
        )
        assert outcome.num_steps == max_steps == outcome.evaluations[-1]["step"]


def test_metrics_and_optimizers_that_do_not_exist_are_told(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any]
) -> None:
    def train(**changes: Any) -> None:
        train_head(make_head(), make_rows(24), make_rows(9, 1), **head_options, **settings(**changes))

    with pytest.raises(UserError, match="'token_accuracy' is not reported by this task"):
        train(selection_metric="token_accuracy")
    with pytest.raises(UserError, match='training.optimizer: .*did you mean "adamw_torch"'):
        train(optimizer="adam_torch")
    with pytest.raises(UserError, match="training.optimizer=galore_adamw"):
        train(optimizer="galore_adamw")


@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "sgd", "adafactor", "rmsprop"])
def test_other_optimizers_train(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any], optimizer: str
) -> None:
    outcome = train_head(
        make_head(), make_rows(24), make_rows(9, 1), **head_options, **settings(optimizer=optimizer, epochs=1)
    )
    assert np.isfinite(outcome.final["metrics"]["loss"])


def test_bf16_stays_near_fp32_and_keeps_fp32_weights(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any]
) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        model = make_head()
        outcome = train_head(
            model, make_rows(40), make_rows(30, 1), **head_options, **settings(precision=precision, epochs=3)
        )
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        with torch.no_grad():  # out of autocast again
            assert forward(model, [[5, 6, 7]]).dtype == torch.float32
            hidden = model.get_base_model().roberta(torch.tensor([[5, 6, 7]])).last_hidden_state
            assert hidden.dtype == torch.float32
        losses[precision] = outcome.final["metrics"]["loss"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], abs=0.02)
    assert losses["bf16"] != losses["fp32"]


def test_gradient_checkpointing_changes_nothing_that_is_learned(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any]
) -> None:
    losses = [
        train_head(
            make_head(), make_rows(24), make_rows(9, 1), **head_options, **settings(gradient_checkpointing=on)
        ).final["metrics"]["loss"]
        for on in (False, True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_nothing_is_printed_where_there_is_no_terminal(
    make_head: Make,
    make_rows: Make,
    settings: Make,
    head_options: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    train_head(make_head(), make_rows(24), make_rows(9, 1), **head_options, **settings())
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_thirty_two_texts_are_learned_by_heart(
    make_head: Make, make_rows: Make, settings: Make, head_options: dict[str, Any]
) -> None:
    rows = make_rows(32)
    outcome = train_head(
        make_head(r=16),
        rows,
        rows,
        **head_options,
        **settings(epochs=60, learning_rate=2e-2, evals_per_epoch=1, selection_metric="loss"),
    )
    assert outcome.kept["metrics"]["loss"] < 0.01
    assert outcome.kept["metrics"]["macro_f1_at_half"] == 1.0
