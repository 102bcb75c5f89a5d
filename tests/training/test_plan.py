from __future__ import annotations

import pytest
from transformers import Trainer, TrainingArguments

from emotion_sweeps.training.loader import PlannedBatches, planned_loader
from emotion_sweeps.training.plan import accumulation_steps, evaluation_steps, steps_per_epoch, total_steps


def batches(count: int, *, units: list[int] | None = None, **changes: int) -> PlannedBatches:
    options = {"global_batch_size": 8, "micro_batch_size": 3, "seed": 0} | changes
    lengths = [3 + i % 7 for i in range(count)]
    return PlannedBatches(lengths, units or [1] * count, **options)


def test_evaluations_are_spread_over_the_epoch_and_end_with_the_last_step() -> None:
    assert evaluation_steps(20, 10, 1) == [10, 20]
    assert evaluation_steps(20, 10, 4) == [3, 5, 8, 10, 13, 15, 18, 20]
    assert evaluation_steps(15, 10, 1) == [10, 15]
    assert evaluation_steps(7, 10, 1) == [7]
    assert evaluation_steps(30, 10, 0.5) == [20, 30]
    assert evaluation_steps(6, 3, 50) == [1, 2, 3, 4, 5, 6]


def test_max_steps_replaces_epochs() -> None:
    assert total_steps(33, 8, 2, None) == 10
    assert total_steps(33, 8, 1.5, None) == 8
    assert total_steps(33, 8, 2, 3) == 3
    assert steps_per_epoch(33, 8) == 5
    assert accumulation_steps(8, 3) == 3
    assert accumulation_steps(8, 3, 2) == 2


@pytest.mark.parametrize("count, micro", [(33, 3), (32, 3), (33, 8), (5, 2), (8, 1)])
def test_micro_batches_cut_the_plan_and_keep_its_order(count: int, micro: int) -> None:
    cut, whole = batches(count, micro_batch_size=micro), batches(count, micro_batch_size=8)
    entries = [row for micro_batch in cut for row, _ in micro_batch]
    assert entries == [row for batch in whole for row, _ in batch]
    assert sorted(entries) == list(range(count))
    assert len(cut) == len(list(cut))
    assert max(map(len, cut)) <= micro


def test_epochs_differ_and_the_same_epoch_is_the_same() -> None:
    plan = batches(33)
    first = list(plan)
    assert list(plan) == first
    plan.epoch = 1
    assert list(plan) != first


def test_shares_add_up_to_the_mean_over_examples_or_tokens() -> None:
    for units in ([1] * 33, [1 + i % 4 for i in range(33)]):
        plan, position = batches(33, units=units), 0
        micro = list(plan)
        for size in (8, 8, 8, 8, 1):
            pieces = accumulation_steps(size, 3)
            entries = [entry for piece in micro[position : position + pieces] for entry in piece]
            position += pieces
            assert len(entries) == size
            assert sum(units[row] * share for row, share in entries) == pytest.approx(1)
            assert len({share for _, share in entries}) == 1


@pytest.mark.parametrize("count", [32, 33, 37, 41])
def test_processes_share_a_global_batch_and_run_alike(count: int) -> None:
    """Every row once over all processes, as many micro-batches each, and the mean of their sums is the global mean."""
    alone = batches(count, micro_batch_size=8)
    parts = [list(batches(count, micro_batch_size=2, process=p, num_processes=3)) for p in range(3)]
    assert len({len(part) for part in parts}) == 1
    real = [row for part in parts for piece in part for row, share in piece if share > 0]
    assert sorted(real) == list(range(count))
    rows_alone = [row for batch in alone for row, _ in batch]
    assert {row for part in parts for row, _ in part[0]} <= set(rows_alone[:8])
    total = sum(share for part in parts for piece in part for _, share in piece) / 3
    assert total == pytest.approx(len(alone))


def test_trainer_counts_the_steps_as_the_plan_does(tmp_path: object) -> None:
    """Trainer derives its steps from the loader's length and the accumulation."""
    for count in (32, 33, 35, 37):
        plan = batches(count)
        args = TrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, gradient_accumulation_steps=plan.accumulation, num_train_epochs=1
        )
        trainer = Trainer.__new__(Trainer)
        trainer.args, trainer._train_batch_size = args, 3
        trainer.get_total_train_batch_size = lambda args: 8  # type: ignore[method-assign]
        trainer.get_sp_size = lambda: 1  # type: ignore[method-assign]
        loader = planned_loader(plan, lambda entries: {"rows": entries})
        assert trainer.set_initial_training_values(args, loader)[1] == steps_per_epoch(count, 8)
