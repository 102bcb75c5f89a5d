from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from emotion_sweeps.report.comparisons import compare
from emotion_sweeps.report.factors import Factor
from emotion_sweeps.report.findings import NoiseEstimate
from emotion_sweeps.report.marginals import marginals_of
from emotion_sweeps.report.variation import Observations, noise_of


def factor(name: str, codes: list[int] | np.ndarray, exact: np.ndarray | None = None) -> Factor:
    codes = np.asarray(codes)
    return Factor(name, tuple(f"{name}{i}" for i in range(int(codes.max()) + 1)), codes, exact)


def observed(y: np.ndarray, weights: np.ndarray | None = None) -> Observations:
    return Observations(y, np.ones(len(y)) if weights is None else weights, 0.0, 0, 0)


def crossed(*sizes: int) -> list[Factor]:
    cells = np.array(list(itertools.product(*(range(size) for size in sizes))))
    return [factor("abcdef"[i], cells[:, i]) for i in range(len(sizes))]


def test_a_paired_comparison_is_the_paired_difference_of_the_textbook() -> None:
    a, b = crossed(2, 12)
    y = np.random.default_rng(0).normal(size=24)
    noise, _ = noise_of(observed(y), [a, b])
    assert noise is not None and noise.degrees == 11
    (contrast,) = compare(a, [a, b], observed(y), noise).contrasts
    expected = stats.ttest_rel(y[:12], y[12:])  # of a 2 x 12 table: residuals and paired differences are one thing
    assert contrast.difference == pytest.approx((y[:12] - y[12:]).mean())
    assert contrast.p_value == pytest.approx(expected.pvalue) and contrast.n_pairs == 12


def test_the_omnibus_of_a_grid_is_the_analysis_of_variance() -> None:
    a, b = crossed(4, 5)
    y = np.random.default_rng(1).normal(size=20) + a.codes * 0.3
    noise, _ = noise_of(observed(y), [a, b])
    table = y.reshape(4, 5)
    rows, columns, grand = table.mean(1), table.mean(0), table.mean()
    left = ((table - rows[:, None] - columns + grand) ** 2).sum()
    f = (5 * ((rows - grand) ** 2).sum() / 3) / (left / 12)
    found = compare(a, [a, b], observed(y), noise)
    assert noise is not None and noise.deviation == pytest.approx(np.sqrt(left / 12))
    assert found.mode == "paired" and found.omnibus == pytest.approx(stats.f.sf(f, 3, 12))
    assert len(found.contrasts) == 6 and {c.n_pairs for c in found.contrasts} == {5}


def test_paired_differences_do_not_care_what_the_other_settings_do_together() -> None:
    a, b, c = crossed(2, 3, 4)
    joint = np.random.default_rng(2).normal(size=(3, 4)) * 100  # nothing additive about it
    y = joint[b.codes, c.codes] + np.where(a.codes == 0, 0.25, 0.0)
    (contrast,) = compare(a, [a, b, c], observed(y), NoiseEstimate(1.0, 12, "")).contrasts
    assert contrast.difference == pytest.approx(0.25) and contrast.error == pytest.approx(np.sqrt(2 / 12))


def test_only_matched_runs_count_and_seeds_weigh() -> None:
    a, b = factor("a", [0, 1, 0, 1, 1]), factor("b", [0, 0, 1, 1, 2])
    weights = np.array([2.0, 4.0, 1.0, 1.0, 9.0])
    seen = observed(np.array([1.0, 2.0, 5.0, 8.0, 100.0]), weights)
    (contrast,) = compare(a, [a, b], seen, NoiseEstimate(2.0, 5, "")).contrasts
    assert contrast.difference == pytest.approx((-1 - 3) / 2)
    assert contrast.error == pytest.approx(2 * np.sqrt(1 / 2 + 1 / 4 + 1 + 1) / 2) and contrast.n_pairs == 2 + 1


def test_an_adjusted_comparison_is_least_squares() -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(1, 2, 60)  # never the same twice, so that no two runs match
    a, lr = factor("a", rng.integers(0, 2, 60)), factor("lr", (x > 1.5).astype(int), x)
    y = 2 * x + 0.3 * a.codes + rng.normal(size=60) * 0.1
    found = compare(a, [a, lr], observed(y), None)
    z = (x - x.mean()) / x.std()
    design = np.column_stack([np.ones(60), z, z**2, z**3, a.codes])
    beta, (squares,), *_ = np.linalg.lstsq(design, y, rcond=None)
    error = np.sqrt(squares / 55 * np.linalg.inv(design.T @ design)[-1, -1])
    (contrast,) = found.contrasts
    assert found.mode == "adjusted" and contrast.n_pairs == 0
    assert contrast.difference == pytest.approx(-beta[-1]) and contrast.error == pytest.approx(error)
    assert contrast.p_value == pytest.approx(2 * stats.t.sf(abs(beta[-1]) / error, 55))


def test_settings_that_move_together_are_confounded_and_never_compared() -> None:
    codes = np.array([0, 0, 0, 1, 1, 1])
    a, b = factor("a", codes), factor("b", codes)
    found = compare(a, [a, b], observed(np.arange(6.0)), None)
    assert found.mode == "confounded" and found.contrasts == () and found.unseen == ((0, 1),) and found.family is None


def test_settings_that_nearly_always_move_together_are_not_adjusted() -> None:
    # One run in forty breaks the rule: least squares would give a number, from that run alone.
    rng = np.random.default_rng(4)
    codes = np.repeat([0, 1], 20)
    other = codes.copy()
    other[0] = 1
    x = rng.uniform(size=40)
    a, b, lr = factor("a", codes), factor("b", other), factor("lr", (x > 0.5).astype(int), x)
    assert compare(a, [a, b, lr], observed(rng.normal(size=40)), None).mode == "confounded"


def test_marginal_means_of_a_full_grid_are_the_averages_and_stand_in_for_holes_elsewhere() -> None:
    a, b = crossed(3, 4)
    y = a.codes * 1.0 + b.codes * 10.0
    whole = marginals_of(a, [a, b], observed(y), NoiseEstimate(0.5, 6, ""))
    assert [m.mean for m in whole.means] == pytest.approx([15.0, 16.0, 17.0]) and whole.adjusted
    half = stats.t.ppf(0.975, 6) * 0.5 / np.sqrt(4)
    assert whole.means[0].high == pytest.approx(15.0 + half) and whole.means[0].n == 4
    kept = np.arange(12) != 3  # the run of level 0 with the worst partner is missing: its plain average is too good
    a2, b2 = factor("a", a.codes[kept]), factor("b", b.codes[kept])
    means = [m.mean for m in marginals_of(a2, [a2, b2], observed(y[kept]), None).means]
    assert np.diff(means) == pytest.approx([1.0, 1.0])
