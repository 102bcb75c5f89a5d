"""The bundled corpus: size, balance, no near-duplicates, emoji, and neither too easy nor too hard."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import pytest

from emotion_sweeps.data.corpus import Corpus

LABELS = "anger anticipation disgust fear joy love optimism pessimism sadness surprise trust".split()
# Blocks that emoji come from; letters, digits and plain punctuation are in none of them.
EMOJI_RANGES = ((0x2190, 0x21FF), (0x2300, 0x23FF), (0x2460, 0x24FF), (0x25A0, 0x27BF), (0x2900, 0x297F),
                (0x2B00, 0x2BFF), (0x3030, 0x303D), (0x3297, 0x3299), (0x1F000, 0x1FAFF))  # fmt: skip
SINGLE_EMOJI = {0x203C, 0x2049, 0x2122, 0x2139}
JOINERS = {0x200D, 0xFE0F, 0x20E3, *range(0xE0020, 0xE0080)}


@pytest.fixture
def demo(load: Callable[..., Corpus]) -> Corpus:
    return load(source="demo", name="demo")


def all_texts(demo: Corpus) -> list[str]:
    return [text for split in demo.splits.values() for text in split.texts]


def five_grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w']+", text.casefold())
    return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))}


def is_purely_emoji(text: str) -> bool:
    """Only emoji and what joins them; keycaps (digit, variation selector, keycap) count."""
    rest = re.sub("[0-9#*]\ufe0f?\u20e3", "", text)
    codes = [ord(char) for char in rest if ord(char) not in JOINERS | SINGLE_EMOJI]
    known = all(any(low <= code <= high for low, high in EMOJI_RANGES) for code in codes)
    return bool(text) and known and all(unicodedata.category(chr(code))[0] in "SC" for code in codes)


def test_size_and_labels(demo: Corpus) -> None:
    assert demo.label_names == LABELS
    assert demo.multilabel
    texts = all_texts(demo)
    assert len(texts) >= 1000
    assert len(demo.train) > len(demo.test or ()) > len(demo.validation) > 100
    assert all(split.labelled for split in demo.splits.values())
    assert demo.report.dropped == {}


def test_every_label_can_be_learned_and_scored(demo: Corpus) -> None:
    assert demo.test is not None
    assert (demo.test.labels.sum(axis=0) >= 20).all()
    assert (demo.validation.labels.sum(axis=0) >= 20).all()
    assert (demo.train.labels.sum(axis=0) >= 100).all()
    per_row = np.concatenate([split.labels.sum(axis=1) for split in demo.splits.values()])
    assert per_row.max() <= 4 and 1.5 < per_row.mean() < 2.5
    assert 0.02 < (per_row == 0).mean() < 0.06


def test_splits_are_stratified(demo: Corpus) -> None:
    shares = np.stack([split.labels.mean(axis=0) for split in demo.splits.values()])
    assert (np.ptp(shares, axis=0) < 0.02).all()


def test_ids_are_unique_and_texts_leak_nowhere(demo: Corpus) -> None:
    ids = [identity for split in demo.splits.values() for identity in split.ids]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"demo-\d{4}", identity) for identity in ids)
    assert demo.report.leaks == [] and not any(demo.report.duplicates.values())


def test_no_two_posts_share_more_than_half_of_their_five_grams(demo: Corpus) -> None:
    grams = [five_grams(text) for text in all_texts(demo)]
    holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for post, each in enumerate(grams):
        for gram in each:
            holders[gram].append(post)
    shared: Counter[tuple[int, int]] = Counter()
    for posts in holders.values():
        shared.update((a, b) for i, a in enumerate(posts) for b in posts[i + 1 :])
    too_near = [pair for pair, n in shared.items() if n > 0.5 * min(len(grams[pair[0]]), len(grams[pair[1]]))]
    assert too_near == []


def test_posts_are_short_single_lines_with_varied_openings(demo: Corpus) -> None:
    texts = all_texts(demo)
    assert all(text == " ".join(text.split()) for text in texts)
    assert all(4 <= len(text.split()) <= 50 for text in texts)
    openings = Counter(" ".join(text.casefold().split()[:2]) for text in texts)
    assert openings.most_common(1)[0][1] <= 0.02 * len(texts)


def test_emoji_column_is_purely_emoji(demo: Corpus) -> None:
    emoji = [cell for split in demo.splits.values() for cell in split.columns["emoji"]]
    assert [cell for cell in emoji if not is_purely_emoji(cell)] == []
    assert max(map(len, emoji)) <= 24
    assert len(set(emoji)) > 0.9 * len(emoji)


@pytest.mark.parametrize(
    ("text", "pure"),
    [
        ("😀", True),
        ("❤️‍🩹🇳🇬", True),
        ("1️⃣", True),
        ("👩🏽‍⚕️", True),
        ("ℹ️", True),
        ("", False),
        ("a😀", False),
        ("😀 😀", False),
        ("1", False),
    ],
)
def test_emoji_check_itself(text: str, pure: bool) -> None:
    assert is_purely_emoji(text) is pure


def test_a_bag_of_words_gets_somewhere_but_not_far(demo: Corpus) -> None:
    """Macro-F1 of TF-IDF + logistic regression on the test part, one threshold a label tuned on validation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    assert demo.test is not None
    words = TfidfVectorizer(sublinear_tf=True)
    train = words.fit_transform(demo.train.texts)
    validation, test = words.transform(demo.validation.texts), words.transform(demo.test.texts)
    scores = []
    for label in range(len(LABELS)):
        model = LogisticRegression(C=4.0, solver="liblinear").fit(train, demo.train.labels[:, label])
        held_out = model.predict_proba(validation)[:, 1]
        gold = demo.validation.labels[:, label]
        threshold = max(np.arange(0.05, 0.95, 0.05), key=lambda t: f1_score(gold, held_out > t, zero_division=0))
        scores.append(f1_score(demo.test.labels[:, label], model.predict_proba(test)[:, 1] > threshold))
    assert 0.25 < np.mean(scores) < 0.75


def test_subsample_of_the_demo(load: Callable[..., Corpus]) -> None:
    small = load(source="demo", name="demo", max_samples=64, max_eval_samples=32)
    assert [len(split) for split in small.splits.values()] == [64, 32, 32]
