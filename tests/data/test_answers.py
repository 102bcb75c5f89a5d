"""The trie of valid answers: its language is exactly the rendered answers, and labels that cannot be told apart are
refused."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from emotion_sweeps.data.answers import ROOT, AnswerTrie, answer_trie, check_answers
from emotion_sweeps.data.prompts import PromptStyle, encode_generation, parse_answer, render_answer
from emotion_sweeps.errors import UserError

Tokenizers = dict[str, PreTrainedTokenizerFast]
FAMILIES = ["plain", "gemma", "qwen", "dropping"]
PREFIXES = ["love", "love of self", "lov", "self", "joy"]
MULTI, SINGLE = PromptStyle("Choose: {labels}"), PromptStyle("Choose: {labels}", multilabel=False)


def language(
    trie: AnswerTrie, node: int = ROOT, path: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], frozenset[int]]]:
    labels = trie.answer(node)
    if labels is not None:
        assert not trie.children(node)
        yield path, labels
    for token, kid in trie.children(node).items():
        yield from language(trie, kid, (*path, token))


def all_rows(count: int) -> list[np.ndarray]:
    return [np.array(flags, np.uint8) for flags in product((0, 1), repeat=count)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("names", [PREFIXES, ["anger", "joy", "sadness"], ["😀", "très triste", "c++"]])
def test_its_language_is_every_subset_once(tokenizers: Tokenizers, family: str, names: list[str]) -> None:
    tokenizer = tokenizers[family]
    trie = answer_trie(tokenizer, MULTI, names)
    found = list(language(trie))
    assert len(found) == len({labels for _, labels in found}) == trie.num_answers == 2 ** len(names)
    assert max(len(path) for path, _ in found) == trie.longest
    by_labels = {labels: list(path) for path, labels in found}
    for row in all_rows(len(names)):
        path = by_labels[frozenset(map(int, np.flatnonzero(row)))]
        assert path == trie.tokens_of(row)
        text = tokenizer.decode(path, skip_special_tokens=True)
        read, valid = parse_answer(MULTI, text, names)
        assert valid and read.tolist() == row.tolist(), text


@pytest.mark.parametrize("family", FAMILIES)
def test_single_labels_are_the_tokenizers_own_tokens(tokenizers: Tokenizers, family: str) -> None:
    tokenizer = tokenizers[family]
    trie = answer_trie(tokenizer, SINGLE, PREFIXES)
    eye = np.eye(len(PREFIXES), dtype=np.uint8)
    rows = encode_generation(tokenizer, SINGLE, ["x"] * len(PREFIXES), eye, PREFIXES, 400)
    assert sorted(language(trie)) == sorted((tuple(ids), frozenset([j])) for j, ids in enumerate(rows.answer_ids))
    assert trie.num_answers == 5 and not trie.multilabel


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_tokenised_as_in_training(tokenizers: Tokenizers, family: str) -> None:
    """Where the tokenizer merges nothing across a separator, the trie's tokens are those of the whole answer."""
    names, tokenizer = ["anger", "joy", "sadness"], tokenizers[family]
    rows = np.stack(all_rows(3))
    whole = encode_generation(tokenizer, MULTI, ["x"] * 8, rows, names, 400).answer_ids
    trie = answer_trie(tokenizer, MULTI, names)
    assert [trie.tokens_of(row) for row in rows] == whole


def test_allowed_follows_a_prefix_and_ends(tokenizers: Tokenizers) -> None:
    trie = answer_trie(tokenizers["gemma"], MULTI, ["anger", "joy"])
    tokens = trie.tokens_of(np.array([1, 1], np.uint8))
    for position, token in enumerate(tokens):
        assert token in trie.allowed(tokens[:position])
    assert trie.allowed(tokens) == [] and trie.allowed(tokens[:-1]) == [trie.end_id]
    with pytest.raises(KeyError):
        trie.allowed([10**6])


def test_no_label_comes_twice_or_out_of_order(tokenizers: Tokenizers) -> None:
    names = ["anger", "joy", "sadness"]
    trie = answer_trie(tokenizers["plain"], MULTI, names)
    valid = {path for path, _ in language(trie)}
    for text in (" joy, anger", " joy, joy", " none, joy", " joy, none"):
        ids = tokenizers["plain"](text, add_special_tokens=False)["input_ids"]
        assert (*ids, trie.end_id) not in valid


def test_a_separator_that_merges_with_the_label_before_it() -> None:
    """Then a label is written as it stands alone behind its separator; the language is still every subset once."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = {"<end>": 0, "a": 1, "b": 2, ";": 3, "c": 4, "a;": 5, " ": 6, "n": 7}
    backend = Tokenizer(models.BPE(vocab, [("a", ";")], unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    style = PromptStyle("{labels}", separator=";", none_word="n")
    names = ["a", "b", "c"]
    trie = answer_trie(tokenizer, style, names)
    found = dict((labels, path) for path, labels in language(trie))
    assert len(found) == 8 and len(set(found.values())) == 8
    assert found[frozenset([0, 1])] == (6, 1, 3, 2, 0)
    for row in all_rows(3):
        read, valid = parse_answer(style, render_answer(style, row, names), names)
        assert valid and read.tolist() == row.tolist()


def test_trimming_forgets_nodes_alone(tokenizers: Tokenizers, monkeypatch: pytest.MonkeyPatch) -> None:
    trie = answer_trie(tokenizers["plain"], MULTI, PREFIXES)
    before = set(language(trie))
    monkeypatch.setattr("emotion_sweeps.data.answers.MANY_NODES", 10)
    trie.trim()
    assert len(trie._answers) == 1 and set(language(trie)) == before


@pytest.mark.parametrize(
    ("style", "names", "message"),
    [
        ({}, ["joy", " "], "a label is empty; give every label a name"),
        ({}, ["Joy", "joy "], "the labels 'Joy' and 'joy ' read alike .* rename one"),
        ({}, ["anger, mild", "joy"], "task.label_separator=', ' stands inside the label 'anger, mild'; .*=\"; \""),
        ({"separator": ";"}, ["a;b", "joy"], "stands inside the label 'a;b'; .*=\" | \""),
        ({}, ["None", "joy"], "task.none_word='none' is also the label 'None'; take a word that is no label"),
        ({}, ["joy", "two\n\u2028\nnone"], "the answer .* cannot be read back as the labels it stands for"),
    ],
)
def test_labels_that_cannot_be_told_apart(style: dict[str, Any], names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("|", r"\|")) as error:
        check_answers(PromptStyle(**style), names)
    assert "\n" not in str(error.value)


def test_what_matters_for_several_labels_does_not_for_one() -> None:
    check_answers(SINGLE, ["none", "anger, mild", "joy"])
    check_answers(MULTI, PREFIXES)


def test_labels_without_tokens_of_their_own() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<unk>": 0, "</s>": 1, ",": 2, "joy": 3, "none": 4, "Answer": 5, ":": 6}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    with pytest.raises(UserError, match="this model's tokenizer turns the answer 'fear' into ''; rename the label"):
        answer_trie(tokenizer, MULTI, ["joy", "fear", "anger"])
    trie = AnswerTrie([[3], [0], [0]], {(0, 1): [2, 0], (0, 2): [2, 0], (1, 2): [2, 0]}, [4], 1)
    with pytest.raises(UserError, match="two different answers are the same tokens for this model's tokenizer"):
        list(language(trie))


def test_a_tokenizer_without_an_end(tokenizers: Tokenizers) -> None:
    from copy import deepcopy

    tokenizer = deepcopy(tokenizers["plain"])
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="needs a tokenizer with an end-of-text token or a chat template"):
        answer_trie(tokenizer, MULTI, ["joy", "fear"])
