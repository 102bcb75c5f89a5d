"""The packed engine on class heads: dropout, isolation, refill, ends, memory, resume, next to the solo engine."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pack_kit import (
    LABELS,
    Ended,
    Spec,
    head_base,
    head_task,
    peft_twin,
    qwen3,
    roberta,
    rows,
    run_pack,
)

from emotion_sweeps.training.checkpoints import last_checkpoint, trainable_weights
from emotion_sweeps.training.packed.engine import PackEngine
from emotion_sweeps.training.progress import DivergedError
from emotion_sweeps.training.rows import TextRows
from emotion_sweeps.training.solo import train_head


def even_rows(count: int, seed: int = 0) -> TextRows:
    """Rows of one length, so that every pass has the same shape whoever takes part."""
    some = rows(count, seed)
    rng = np.random.default_rng(seed)
    ids = [[*row, *(int(t) for t in rng.integers(5, 60, 12 - len(row)))] for row in some.input_ids]
    return TextRows(some.ids, ids, some.labels)


def again(spec: Spec, **changes: Any) -> Spec:
    return dataclasses.replace(spec, records=[], **changes)


def same_trace(one: Ended, other: Ended, token: Any, other_token: Any, *, bitwise: bool) -> None:
    mine, its = one.trace[token], other.trace[other_token]
    assert len(mine) == len(its) > 0
    for number, (a, b) in enumerate(zip(mine, its, strict=True)):
        for name in a:
            if bitwise:
                assert torch.equal(a[name], b[name]), (number, name)
            else:
                assert torch.allclose(a[name], b[name], rtol=0, atol=1e-9), (number, name)


DROPPING = [
    Spec(dropout=0.3, r=3),
    Spec(dropout=0.1, r=5, seed=8, learning_rate=5e-3),
    Spec(dropout=0.0, r=2, global_batch_size=13),
    Spec(dropout=0.3, r=4, scheduler="cosine"),
]


@pytest.mark.parametrize("num_slots", [4, 2])
def test_with_dropout_a_trial_alone_and_among_pack_mates_agree(num_slots: int) -> None:
    """The base's own dropout too, hidden and attention; with two slots, some begin late beside other texts."""
    base, task = head_base(roberta(0.2), torch.float64), head_task(rows(40), rows(12, 1))
    together = run_pack(base, task, [again(spec) for spec in DROPPING], num_slots=num_slots)
    for token, spec in enumerate(DROPPING):
        alone = run_pack(base, task, [again(spec)])
        same_trace(together, alone, token, 0, bitwise=False)


def test_dropout_does_drop_and_follows_the_seed() -> None:
    base, task = head_base(qwen3(), torch.float64), head_task(rows(40), rows(12, 1))
    traces = [
        run_pack(base, task, [spec]).trace[0][-1]
        for spec in (Spec(), Spec(dropout=0.3), Spec(dropout=0.3), Spec(dropout=0.31))
    ]
    same = [all(torch.equal(traces[1][name], other[name]) for name in other) for other in traces]
    assert same == [False, True, True, False]


def test_changing_one_trial_leaves_the_others_bitwise_alone() -> None:
    base, task = head_base(roberta(0.1)), head_task(even_rows(40), even_rows(12, 1))
    specs = [Spec(dropout=0.1), Spec(dropout=0.1, r=3, seed=5), Spec(dropout=0.2, r=2)]
    before = run_pack(base, task, [again(spec) for spec in specs])
    changed = again(
        specs[1], learning_rate=0.5, weight_decay=0.3, dropout=0.6, max_grad_norm=None, loss_weight=[1.0, 3, 1]
    )
    after = run_pack(base, task, [again(specs[0]), changed, again(specs[2])])
    for token in (0, 2):
        same_trace(before, after, token, token, bitwise=True)
    assert not torch.equal(*(list(e.trace[1][-1].values())[0] for e in (before, after)))


def test_a_diverged_or_pruned_trial_leaves_the_others_bitwise_alone_and_its_slot_is_refilled() -> None:
    base, task = head_base(roberta(0.1), torch.float64), head_task(even_rows(40), even_rows(12, 1))
    specs = [Spec(dropout=0.1), Spec(seed=5), Spec(dropout=0.2, r=2), Spec(seed=6), Spec(seed=7)]
    quiet = run_pack(base, task, [again(spec) for spec in specs], num_slots=3)
    diverging = again(specs[1], learning_rate=1e250, head_learning_rate=1e250, max_grad_norm=None, warmup=0)
    pruned = again(specs[1], should_stop=lambda: True)
    for ending in (diverging, pruned):
        disturbed = [again(spec) for spec in specs]
        disturbed[1] = ending
        loud = run_pack(base, task, disturbed, num_slots=3)
        assert loud.order[0] == 1 and loud.engine.counts.most_slots == 3
        for token in (0, 2):
            same_trace(quiet, loud, token, token, bitwise=True)
        for token in (3, 4):  # they took the freed slot, or began later: fresh runs either way
            same_trace(loud, run_pack(base, task, [again(specs[token])]), token, 0, bitwise=False)
        assert (1 in loud.errors) == (ending is diverging)


def test_a_diverged_trial_fails_with_the_solo_engines_message() -> None:
    base, task = head_base(roberta()), head_task(rows(40), rows(12, 1))
    spec = Spec(learning_rate=1e30, head_learning_rate=1e30, max_grad_norm=None, warmup=0)
    packed = run_pack(base, task, [spec, Spec()])
    with pytest.raises(DivergedError) as alone:
        solo(base, again(spec), rows(40), rows(12, 1))
    assert isinstance(packed.errors[0], DivergedError)
    assert str(packed.errors[0]) == str(alone.value)
    assert packed.outcomes[1].status == "done"


def solo(
    base: Any, spec: Spec, train: TextRows, validation: TextRows, test: TextRows | None = None, **more: Any
) -> Any:
    return train_head(
        peft_twin(base, spec),
        train,
        validation,
        test,
        label_names=LABELS,
        multilabel=True,
        head_modules=["classifier", "score"],
        head_learning_rate=spec.head_learning_rate,
        pad_id=1,
        **spec.settings(**more),
    )


@pytest.mark.parametrize("micro_batch_size", [8, 3])
def test_a_trial_in_a_pack_gives_the_solo_engines_records_and_outcome(micro_batch_size: int) -> None:
    base, parts = head_base(roberta()), (rows(45), rows(20, 1), rows(16, 2))
    specs = [
        Spec(weight_decay=0.1, scheduler="cosine", max_grad_norm=0.1),
        Spec(r=2, seed=4, early_stopping_patience=1),
    ]
    more = {"micro_batch_size": micro_batch_size, "log_every": 4, "evals_per_epoch": 2, "epochs": 3}
    packed = run_pack(base, head_task(*parts), specs, **more)
    for token, spec in enumerate(specs):
        twin = again(spec)
        wanted, mine = solo(base, twin, *parts, **more), packed.outcomes[token]
        assert (mine.status, mine.num_steps) == (wanted.status, wanted.num_steps)
        for field in ("best", "selection", "kept", "final", "evaluations", "per_label", "thresholds", "test_metrics"):
            assert_close(getattr(mine, field), getattr(wanted, field))
        for split in ("validation", "test"):
            np.testing.assert_allclose(
                getattr(mine, split).probabilities, getattr(wanted, split).probabilities, atol=2e-5
            )
        kinds = [[record["kind"] for record in records] for records in (spec.records, twin.records)]
        assert kinds[0] == kinds[1]
        timeless = [
            [{k: v for k, v in r.items() if k != "time_s"} for r in records if r["kind"] != "memory"]
            for records in (spec.records, twin.records)
        ]
        assert_close(*timeless)
        assert mine.train_time_s > 0 and mine.evaluate_time_s > 0


def assert_close(mine: Any, wanted: Any) -> None:
    if isinstance(wanted, dict):
        assert set(mine) == set(wanted)
        for key in wanted:
            assert_close(mine[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(mine) == len(wanted)
        for a, b in zip(mine, wanted, strict=True):
            assert_close(a, b)
    elif isinstance(wanted, float):
        assert mine == pytest.approx(wanted, rel=2e-4, abs=1e-5)
    else:
        assert mine == wanted


def test_trials_of_one_evaluation_all_report_before_any_is_asked() -> None:
    base, task = head_base(roberta()), head_task(rows(16), rows(8, 1))
    events: list[tuple[str, int]] = []
    specs = [Spec(should_stop=lambda t=t: events.append(("asked", t)) or False) for t in range(3)]  # type: ignore[misc, func-returns-value]

    def listen(engine: PackEngine) -> None:
        original = engine._report

        def report(index: int, metrics: Any) -> None:
            events.append(("reported", index))
            original(index, metrics)

        engine._report = report  # type: ignore[method-assign]

    run_pack(base, task, specs, prepare=listen)
    assert events[:6] == [("reported", t) for t in range(3)] + [("asked", t) for t in range(3)]


def test_out_of_memory_halves_the_slots_and_loses_nothing() -> None:
    base, task = head_base(roberta(0.1), torch.float64), head_task(rows(40), rows(12, 1))
    specs = [Spec(dropout=0.1, seed=s, r=1 + s, global_batch_size=13) for s in range(5)]
    calm = run_pack(base, task, [again(spec) for spec in specs])
    passes = 0

    def shrink_memory(engine: PackEngine) -> None:
        original = engine.task.losses

        def losses(model: Any, batch: Any, trials: Any) -> Any:
            nonlocal passes
            passes += 1
            found = original(model, batch, trials)
            if passes == 7:  # within a step: one of its two micro-batches is in the gradients already
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return found

        engine.task.losses = losses  # type: ignore[method-assign]

    try:
        tight = run_pack(base, task, [again(spec) for spec in specs], prepare=shrink_memory)
    finally:
        del task.losses  # type: ignore[attr-defined]
    assert tight.engine.counts.halvings == 1 and tight.engine.num_slots == 3
    assert set(tight.outcomes) == set(range(5)) and not tight.errors
    for token in range(5):
        same_trace(calm, tight, token, token, bitwise=False)


def test_a_trial_that_does_not_fit_alone_fails_and_the_next_goes_on() -> None:
    base, task = head_base(roberta()), head_task(rows(16), rows(8, 1))

    def fits_small_ranks(engine: PackEngine) -> None:
        original = engine.task.losses

        def losses(model: Any, batch: Any, trials: Any) -> Any:
            if any(trial.rank > 4 for trial in trials):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(model, batch, trials)

        engine.task.losses = losses  # type: ignore[method-assign]

    ended = run_pack(base, task, [Spec(), Spec(r=9), Spec(seed=1)], prepare=fits_small_ranks)
    assert set(ended.outcomes) == {0, 2}
    assert "out of memory with a single trial" in str(ended.errors[1])


def test_evaluation_uses_fewer_rows_when_memory_runs_out() -> None:
    base, task = head_base(roberta()), head_task(rows(16), rows(8, 1))
    wanted = run_pack(base, task, [Spec(), Spec(seed=1)])

    def small(engine: PackEngine) -> None:
        original = engine.task.evaluate

        def evaluate(pack: Any, autocast: Any, slots: Any, max_rows: int) -> Any:
            if max_rows > 8:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(pack, autocast, slots, max_rows)

        engine.task.evaluate = evaluate  # type: ignore[method-assign]

    ended = run_pack(base, head_task(rows(16), rows(8, 1)), [Spec(), Spec(seed=1)], prepare=small)
    for token in (0, 1):
        assert_close(ended.outcomes[token].evaluations, wanted.outcomes[token].evaluations)


class Killed(BaseException):
    pass


def killed_at(spec: Spec, step: int) -> Spec:
    """A trial whose process dies with the train record of a step."""
    records: list[dict[str, Any]] = []

    class Dying(list[dict[str, Any]]):
        def append(self, record: dict[str, Any]) -> None:
            if record["kind"] == "train" and record["step"] == step:
                raise Killed
            records.append(record)

    return dataclasses.replace(spec, records=Dying())


@pytest.mark.parametrize("resumed_by", ["pack", "solo"])
def test_a_killed_trial_goes_on_from_its_checkpoint_in_either_engine(tmp_path: Path, resumed_by: str) -> None:
    base, parts = head_base(roberta()), (rows(40), rows(20, 1), rows(16, 2))
    spec = Spec(weight_decay=0.1, scheduler="cosine", max_grad_norm=0.1)
    more = {"epochs": 4}
    whole = run_pack(base, head_task(*parts), [again(spec)], **more)
    folder = tmp_path / "checkpoints"
    with pytest.raises(Killed):
        run_pack(base, head_task(*parts), [killed_at(again(spec, checkpoint_dir=folder), 13), Spec(seed=8)], **more)
    checkpoint = last_checkpoint(folder)
    assert checkpoint is not None and checkpoint.name == "checkpoint-10"
    resumed = again(spec, checkpoint_dir=folder, resume_from=checkpoint)
    if resumed_by == "pack":
        ended = run_pack(base, head_task(*parts), [resumed, Spec(seed=9)], **more)
        outcome = ended.outcomes[0]
        last = {k.removeprefix("weights/"): v for k, v in whole.trace[0][-1].items() if k.startswith("weights/")}
        mine = {k.removeprefix("weights/"): v for k, v in ended.trace[0][-1].items() if k.startswith("weights/")}
        for name, value in last.items():
            torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-5)
    else:
        outcome = solo(base, resumed, *parts, **more)
    assert_close(outcome.evaluations, whole.outcomes[0].evaluations)
    assert_close(outcome.test_metrics, whole.outcomes[0].test_metrics)
    assert min(record["step"] for record in resumed.records if record["kind"] == "train") == 11


def test_a_trial_begun_alone_goes_on_in_a_pack(tmp_path: Path) -> None:
    base, parts = head_base(roberta()), (rows(40), rows(20, 1), rows(16, 2))
    spec, more = Spec(weight_decay=0.1, scheduler="cosine", max_grad_norm=0.1), {"epochs": 4}
    whole = solo(base, again(spec), *parts, **more)
    folder = tmp_path / "checkpoints"
    with pytest.raises(Killed):
        solo(base, killed_at(again(spec, checkpoint_dir=folder), 13), *parts, **more)
    resumed = again(spec, checkpoint_dir=folder, resume_from=last_checkpoint(folder))
    ended = run_pack(base, head_task(*parts), [Spec(seed=9, r=7), resumed], **more)
    assert_close(ended.outcomes[1].evaluations, whole.evaluations)
    assert_close(ended.outcomes[1].test_metrics, whole.test_metrics)


def test_a_paused_trial_goes_on_where_it_paused(tmp_path: Path) -> None:
    base, parts = head_base(roberta()), (rows(40), rows(20, 1), rows(16, 2))
    spec, more = Spec(scheduler="cosine"), {"epochs": 4}
    whole = run_pack(base, head_task(*parts), [again(spec)], **more)
    folder = tmp_path / "checkpoints"
    paused = run_pack(base, head_task(*parts), [again(spec, checkpoint_dir=folder, should_stop=lambda: True)], **more)
    assert paused.outcomes[0].status == "pruned" and paused.outcomes[0].num_steps == 5
    resumed = again(spec, checkpoint_dir=folder, resume_from=last_checkpoint(folder))
    ended = run_pack(base, head_task(*parts), [resumed], **more)
    assert_close(ended.outcomes[0].evaluations, whole.outcomes[0].evaluations)


def test_kept_weights_are_those_of_the_best_evaluation() -> None:
    base, parts = head_base(roberta()), (rows(40), rows(20, 1), rows(16, 2))
    ended = run_pack(
        base, head_task(*parts), [Spec(learning_rate=5e-2, head_learning_rate=0.3, scheduler="constant")], epochs=8
    )
    outcome = ended.outcomes[0]
    step = outcome.selection["step"]
    assert step < outcome.num_steps, "the test needs a best evaluation before the last"
    at_best = ended.trace[0][step - 1]
    assert all(torch.equal(value, at_best[f"weights/{name}"]) for name, value in ended.weights[0].items())
    assert math.isfinite(outcome.kept["metrics"]["loss"])


def test_first_weights_are_the_solo_trials() -> None:
    base = head_base(roberta())
    model = peft_twin(base, Spec(r=3, seed=11))
    other = peft_twin(base, Spec(r=3, seed=11))
    assert all(
        torch.equal(a, b)
        for a, b in zip(trainable_weights(model).values(), trainable_weights(other).values(), strict=True)
    )
    assert any("lora_A" in name and value.any() for name, value in trainable_weights(model).items())
