"""Plans of batches: pure functions that lose nothing and pad little."""

from __future__ import annotations

import numpy as np
import pytest

from emotion_sweeps.data.batches import num_steps, plan_epoch, plan_evaluation, split_micro_batches


def lognormal_lengths(size: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).lognormal(3, 0.7, size).astype(int).clip(1, 200).tolist()


def padding_share(plan: list[list[int]], lengths: list[int]) -> float:
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in plan)
    return 1 - sum(lengths) / padded


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, 1000])
@pytest.mark.parametrize("batch_size", [1, 8, 32])
def test_every_index_once_and_the_incomplete_batch_last(size: int, batch_size: int) -> None:
    plan = plan_epoch(lognormal_lengths(size), batch_size, seed=1, epoch=2)
    assert sorted(index for batch in plan for index in batch) == list(range(size))
    assert all(len(batch) == batch_size for batch in plan[:-1])
    assert len(plan) == num_steps(size, batch_size, 1)
    assert all(type(index) is int for batch in plan for index in batch)


def test_plan_is_a_function_of_seed_epoch_and_lengths() -> None:
    lengths = lognormal_lengths(500)
    plan = plan_epoch(lengths, 16, seed=3, epoch=0)
    np.random.seed(0)
    assert plan == plan_epoch(tuple(lengths), 16, seed=3, epoch=0)
    assert plan != plan_epoch(lengths, 16, seed=3, epoch=1)
    assert plan != plan_epoch(lengths, 16, seed=4, epoch=0)


def test_pinned_plan() -> None:
    # Engines that run at different times must see the same batches: a change here changes every result.
    assert plan_epoch([5, 1, 4, 2, 3, 9, 7], 2, seed=0, epoch=0) == [[2, 0], [6, 5], [3, 4], [1]]


def test_padding_is_far_below_random_order() -> None:
    lengths = lognormal_lengths(5000)
    order = np.random.default_rng(0).permutation(5000).tolist()
    at_random = padding_share(split_micro_batches(order, 16), lengths)
    sorted_whole = padding_share(plan_evaluation(lengths, 16), lengths)
    planned = padding_share(plan_epoch(lengths, 16, seed=0, epoch=0), lengths)
    assert at_random > 0.4
    assert planned < 0.25 * at_random
    assert sorted_whole <= planned


def test_batches_come_in_no_order_of_length() -> None:
    lengths = lognormal_lengths(8000)
    means = [np.mean([lengths[i] for i in batch]) for batch in plan_epoch(lengths, 16, seed=0, epoch=0)]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.15


def test_left_over_rows_are_drawn_whatever_their_length() -> None:
    lengths = list(range(1, 101))
    left = [index for epoch in range(200) for index in plan_epoch(lengths, 32, seed=0, epoch=epoch)[-1]]
    assert len(left) == 200 * 4
    assert np.mean([lengths[index] for index in left]) == pytest.approx(50.5, abs=4)


def test_evaluation_plan() -> None:
    lengths = lognormal_lengths(103)
    plan = plan_evaluation(lengths, 10)
    flat = [index for batch in plan for index in batch]
    assert sorted(flat) == list(range(103))
    assert [lengths[index] for index in flat] == sorted(lengths)
    assert [len(batch) for batch in plan] == [10] * 10 + [3]


def test_micro_batches() -> None:
    assert split_micro_batches([5, 3, 1, 2, 4], 2) == [[5, 3], [1, 2], [4]]
    assert split_micro_batches([5, 3], 8) == [[5, 3]]


@pytest.mark.parametrize(
    ("examples", "batch", "epochs", "steps"),
    [(100, 10, 1, 10), (101, 10, 2, 22), (5, 10, 3, 3), (100, 10, 0.25, 3), (0, 4, 2, 0)],
)
def test_num_steps(examples: int, batch: int, epochs: float, steps: int) -> None:
    assert num_steps(examples, batch, epochs) == steps


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="global_batch_size must be >= 1, got 0"):
        plan_epoch([1, 2], 0, seed=0, epoch=0)
    with pytest.raises(ValueError, match="micro_batch_size must be >= 1, got 0"):
        split_micro_batches([1], 0)
