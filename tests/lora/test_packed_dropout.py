"""The dropout streams of a pack: a trial's own, shared where equal, met at the rate that was asked for."""

from __future__ import annotations

import pytest
import torch

from emotion_sweeps.lora.packed_dropout import Stream, keep_mask, own_shape, random_bits

CPU = torch.device("cpu")


def masks(streams: list[Stream], shape: tuple[int, ...], rates: list[float], name: str = "layer") -> torch.Tensor:
    return keep_mask(streams, name, shape, rates, dtype=torch.float64, device=CPU)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_the_rate_is_met_and_the_mean_is_kept(rate: float) -> None:
    mask = masks([Stream(1, 64, 50)], (64, 50, 40), [rate])
    assert mask.unique().tolist() == [0.0, pytest.approx(1 / (1 - rate), rel=1e-4)]
    assert float((mask == 0).double().mean()) == pytest.approx(rate, abs=0.005)
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.02)


def test_no_dropout_multiplies_with_one() -> None:
    assert (masks([Stream(1, 4, 5)], (4, 5, 6), [0.0]) == 1).all()


def test_bits_follow_seed_and_name_alone() -> None:
    first = random_bits((7, 5), 3, "a", CPU)
    torch.manual_seed(99)
    assert torch.equal(first, random_bits((7, 5), 3, "a", CPU))
    assert not torch.equal(first, random_bits((7, 5), 4, "a", CPU))
    assert not torch.equal(first, random_bits((7, 5), 3, "b", CPU))


def test_all_sixteen_bits_are_random() -> None:
    bits = random_bits((40000,), 0, "x", CPU).int() + 32768
    for place in range(16):
        assert float(((bits >> place) & 1).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_equal_streams_share_one_draw_and_are_cut_at_their_own_rates() -> None:
    same = masks([Stream(1, 8, 9)] * 3, (8, 9, 10), [0.3, 0.3, 0.3])
    assert same.shape == (1, 8, 9, 10)
    mixed = masks([Stream(1, 8, 9)] * 2, (8, 9, 10), [0.1, 0.6])
    assert mixed.shape == (2, 8, 9, 10)
    assert ((mixed[0] == 0) <= (mixed[1] == 0)).all(), "what .1 drops, .6 drops too"


@pytest.mark.parametrize("shape", [(6, 9, 4), (6, 2, 9, 9)])
def test_wider_pack_mates_do_not_move_a_trials_mask(shape: tuple[int, ...]) -> None:
    """3 rows of 5 tokens, alone and in a pass of 6 rows of 9 tokens."""
    mine = Stream(7, 3, 5)
    alone = masks([mine], own_shape(shape, mine), [0.4])[0]
    together = masks([Stream(8, 6, 9), mine], shape, [0.2, 0.4])[1]
    part = tuple(slice(size) for size in own_shape(shape, mine))
    assert torch.equal(together[part], alone)
    outside = torch.ones(shape, dtype=torch.bool)
    outside[part] = False
    assert (together[outside] > 0).all(), "padding keeps its values, so nothing is lost in sums over it"


def test_features_are_no_positions() -> None:
    """`(rows, features)` is a trial's own whatever its width."""
    assert own_shape((6, 16), Stream(1, 3, 5)) == (3, 16)
