"""Splits by text, duplicates, leaks and subsamples."""

from __future__ import annotations

import numpy as np
import pytest

from emotion_sweeps.data.splits import count_duplicates, cut_by_text, find_leaks, normalise_text, subsample


def example(seed: int, size: int = 2000) -> tuple[list[str], np.ndarray]:
    """Texts, a quarter of them copies, with six labels from frequent to rare."""
    draw = np.random.default_rng(seed)
    texts = [f"Text {number}" for number in draw.integers(0, int(size * 1.5), size)]
    labels = (draw.random((size, 6)) < np.array([0.5, 0.3, 0.2, 0.1, 0.05, 0.02])).astype(np.uint8)
    return texts, labels


@pytest.mark.parametrize("fractions", [[0.9, 0.1], [0.7, 0.1, 0.2]])
@pytest.mark.parametrize("seed", range(3))
def test_cut_keeps_equal_texts_together_and_labels_in_proportion(fractions: list[float], seed: int) -> None:
    texts, labels = example(seed)
    parts = cut_by_text(texts, labels, fractions, seed)
    assert sorted(row for part in parts for row in part) == list(range(len(texts)))
    assert all(part == sorted(part) for part in parts)
    by_part = [{texts[row] for row in part} for part in parts]
    assert all(not (a & b) for i, a in enumerate(by_part) for b in by_part[i + 1 :])
    for part, share in zip(parts, fractions, strict=True):
        assert len(part) == pytest.approx(share * len(texts), rel=0.12)
        wanted = share * labels.sum(axis=0)
        assert (np.abs(labels[part].sum(axis=0) - wanted) <= 0.1 * wanted + 4).all()


def test_rare_labels_are_spread_better_than_by_chance() -> None:
    texts = [f"text {index}" for index in range(1000)]
    labels = np.zeros((1000, 2), dtype=np.uint8)
    labels[:20, 0] = labels[20:, 1] = 1
    for seed in range(5):
        parts = cut_by_text(texts, labels, [0.8, 0.1, 0.1], seed)
        assert [int(labels[part, 0].sum()) for part in parts] == [16, 2, 2]


def test_cut_depends_on_seed_and_content_alone() -> None:
    texts, labels = example(0, 300)
    first = cut_by_text(texts, labels, [0.8, 0.2], 1)
    assert first == cut_by_text(texts, labels, [0.8, 0.2], 1)
    assert first != cut_by_text(texts, labels, [0.8, 0.2], 2)
    order = np.random.default_rng(5).permutation(len(texts))
    shuffled = cut_by_text([texts[row] for row in order], labels[order], [0.8, 0.2], 1)
    assert sorted(texts[row] for row in first[1]) == sorted(texts[order[row]] for row in shuffled[1])


def test_rows_without_labels_are_dealt_too() -> None:
    parts = cut_by_text([str(index) for index in range(100)], np.zeros((100, 3), dtype=np.uint8), [0.75, 0.25], 0)
    assert [len(part) for part in parts] == [75, 25]


def test_subsample_is_nested_and_depends_on_content() -> None:
    texts = [f"text {index}" for index in range(500)]
    small, large = subsample(texts, 50, 3), subsample(texts, 200, 3)
    assert len(small) == 50 and len(large) == 200 and set(small) <= set(large)
    assert large == sorted(large)
    assert small != subsample(texts, 50, 4)
    backwards = subsample(texts[::-1], 50, 3)
    assert {texts[row] for row in small} == {texts[::-1][row] for row in backwards}
    assert subsample(texts, None, 3) == subsample(texts, 500, 3) == list(range(500))


def test_subsample_draws_copies_one_by_one() -> None:
    texts = ["same"] * 100 + [f"text {index}" for index in range(900)]
    share = sum(texts[row] == "same" for row in subsample(texts, 500, 0))
    assert 30 < share < 70


def test_normalised_text() -> None:
    assert normalise_text("  Thank   YOU\t!\n") == "thank you !"
    assert normalise_text("cafe\u0301") == normalise_text("CAF\u00c9")
    assert normalise_text("thank you") != normalise_text("thank you!")


def test_duplicates_and_leaks() -> None:
    assert count_duplicates(["a", "A ", "b", "a"]) == 2
    leaks = find_leaks({"train": ["a", "b", "A", "c"], "validation": ["a ", "x"], "test": ["x", "c", "c"]})
    assert [(leak.source, leak.target, leak.rows) for leak in leaks] == [
        ("train", "validation", [0, 2]),
        ("train", "test", [3]),
        ("validation", "test", [1]),
    ]
    assert leaks[0].examples == ["a", "A"]
    assert find_leaks({"train": ["a"], "validation": ["b"]}) == []
