"""Findings against studies whose truth is known; `python tests/report/synthetic.py --seed N` runs other seeds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from synthetic import DESIGNS, PAIRED_SD, draw_study, finds_scheduler, judge, power_study

STUDIES = 200


@pytest.fixture(scope="module")
def verdicts() -> list:
    return [judge(draw_study(seed)) for seed in range(STUDIES)]


@pytest.mark.slow
def test_at_most_one_study_in_twenty_contains_a_false_finding(verdicts: list) -> None:
    wrong = [verdict for verdict in verdicts if verdict.false]
    assert len(wrong) <= 0.05 * STUDIES, [verdict.false for verdict in wrong]


@pytest.mark.slow
def test_so_it_does_where_nothing_makes_a_difference() -> None:
    # The worst case: whatever is found is false. A true rate of 3 % exceeds 16 of 200 once in some thousand tests.
    wrong = [v for v in (judge(draw_study(seed, active=0.0)) for seed in range(5000, 5000 + STUDIES)) if v.false]
    assert len(wrong) <= 16, [verdict.false for verdict in wrong]


@pytest.mark.slow
def test_every_kind_of_study_is_among_them_and_most_find_something(verdicts: list) -> None:
    kinds = Counter(verdict.kind for verdict in verdicts)
    assert len(kinds) == 8 and min(kinds.values()) >= 10
    assert sum(any(f.kind == "effect" for f in v.found) for v in verdicts) > 0.4 * STUDIES
    assert any(f.kind == "interaction" for v in verdicts for f in v.found)
    assert any(f.kind == "confounded" for v in verdicts for f in v.found)


@pytest.mark.slow
def test_the_intervals_of_effects_hold_the_true_difference(verdicts: list) -> None:
    missed, intervals = sum(v.missed_intervals for v in verdicts), sum(v.intervals for v in verdicts)
    assert intervals > 200 and missed <= 0.05 * intervals


@pytest.mark.slow
def test_effects_of_one_sd_of_a_pair_are_found_over_twelve_pairs_in_four_of_five_studies() -> None:
    found = {
        (design, others): np.mean(
            [finds_scheduler(power_study(design, seed, PAIRED_SD, others=others)) for seed in range(STUDIES)]
        )
        for design in DESIGNS
        for others in (False, True)
    }
    assert np.mean(list(found.values())) >= 0.80, found
    assert min(share for (_, others), share in found.items() if others) >= 0.80, found


def test_no_effect_is_found_where_there_is_none_and_a_large_one_always() -> None:
    (design, *_) = DESIGNS
    assert sum(finds_scheduler(power_study(design, seed, 0.0, others=False)) for seed in range(20)) <= 3
    assert all(finds_scheduler(power_study(design, seed, 4.0, others=False)) for seed in range(20))


def test_a_study_is_its_seed() -> None:
    one, again, other = draw_study(7), draw_study(7), draw_study(8)
    assert one.runs == again.runs and one.runs != other.runs
