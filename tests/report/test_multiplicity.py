from __future__ import annotations

import itertools

import pytest

from emotion_sweeps.report.multiplicity import (
    BEST,
    FAMILY_WISE,
    INTERACTIONS,
    MAIN,
    Family,
    _true_together,
    adjust,
    holm,
)


def test_the_shares_add_up_to_five_per_cent() -> None:
    assert MAIN + INTERACTIONS + BEST == pytest.approx(FAMILY_WISE) == pytest.approx(0.05)


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 6])
def test_the_counts_of_equalities_that_can_hold_together_are_those_of_all_partitions(levels: int) -> None:
    # Brute force: give every level one of `levels` values and count the pairs of equal levels.
    counts = {
        sum(a == b for a, b in itertools.combinations(values, 2))
        for values in itertools.product(range(levels), repeat=levels)
    }
    assert set(_true_together(levels)) == counts


def test_factors_of_two_levels_are_holm() -> None:
    p = [0.004, 0.02, 0.011, 0.6]
    by_hand = {0.004: 4 * 0.004, 0.011: 3 * 0.011, 0.02: 2 * 0.02, 0.6: 0.6}
    scale = FAMILY_WISE / MAIN
    adjusted = adjust([Family(value, (value,), 2) for value in p])
    assert [pair.p_value for (pair,) in adjusted] == pytest.approx([min(1.0, by_hand[v] * scale) for v in p])
    assert holm(p, FAMILY_WISE) == pytest.approx([by_hand[v] for v in p])


def test_a_single_test_takes_the_whole_share() -> None:
    ((pair,),) = adjust([Family(0.01, (0.01,), 2)])
    assert pair.p_value == pytest.approx(0.01 * FAMILY_WISE / MAIN) and pair.level == pytest.approx(MAIN)


def test_pairs_of_three_levels_need_no_more_than_their_omnibus() -> None:
    # Closed testing: two equalities among three means imply the third, so after the omnibus pairs stand alone.
    (pairs,) = adjust([Family(0.01, (0.002, 0.03, 0.5), 3)])
    assert [p.p_value * MAIN / FAMILY_WISE for p in pairs] == pytest.approx([0.01, 0.03, 0.5])


def test_pairs_of_four_levels_are_counted_as_shaffer_does() -> None:
    # After the omnibus at most 3 of 6 equalities can hold; having rejected 3, still 3; then 2 and 1.
    p = (0.001, 0.002, 0.003, 0.004, 0.2, 0.3)
    (pairs,) = adjust([Family(0.0005, p, 4)])
    assert [x.p_value * MAIN / FAMILY_WISE for x in pairs] == pytest.approx([0.003, 0.006, 0.009, 0.012, 0.4, 0.4])


def test_nothing_is_found_within_a_factor_whose_omnibus_is_not() -> None:
    (pairs,) = adjust([Family(0.2, (0.001, 0.5, 0.5), 3)])
    assert all(pair.p_value > FAMILY_WISE for pair in pairs)


def test_a_factor_hands_its_share_on_only_when_all_its_pairs_are_told_apart() -> None:
    open_one = Family(0.001, (0.0001, 0.0001, 0.9), 3)  # two of its levels may be equal: a false claim is possible
    done = Family(0.001, (0.0001, 0.0001, 0.0001), 3)
    last = Family(0.03, (0.03,), 2)
    assert adjust([open_one, last])[1][0].level == pytest.approx(MAIN / 2)
    assert adjust([done, last])[1][0].level == pytest.approx(MAIN)
    assert adjust([open_one, last])[1][0].p_value > FAMILY_WISE >= adjust([done, last])[1][0].p_value


def test_a_pair_is_found_exactly_when_its_test_meets_its_level() -> None:
    values = [0.0005, 0.004, 0.012, 0.02, 0.04, 0.2]
    for p in itertools.product(values, repeat=3):
        for (pair,), raw in zip(adjust([Family(v, (v,), 2) for v in p]), p, strict=True):
            assert (pair.p_value <= FAMILY_WISE) == (raw <= pair.level + 1e-12)
