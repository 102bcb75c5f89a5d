"""Every valid answer of label generation as a trie over tokens, for constrained decoding and for scoring.

An answer is a list of labels in their fixed order, each at most once, or the word for none alone, then the end token.
With 11 labels those are 2,048 answers, with 28 a quarter of a billion: nodes are therefore made when they are first
asked for, by following all readings of a prefix at once, so that a label which begins another one is no special case.
A label's tokens depend on the label before it, because a tokenizer may merge a separator with what follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emotion_sweeps.data.prompts import (
    PromptStyle,
    answer_end_id,
    encode_answers,
    normalise,
    parse_answer,
    render_answer,
)
from emotion_sweeps.errors import UserError
from emotion_sweeps.notices import notice_once

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOT = 0
MANY_NODES = 200_000  # about 100 MB
_NONE = -1  # the word for none, as a target
_START = -2  # nothing before
_Reading = tuple[frozenset[int], int, int, int]  # labels so far, the last of them, the target, its tokens consumed


class AnswerTrie:
    """The valid answers for one tokenizer, style and label set.

    Args:
        first: the tokens of each label where it opens an answer.
        follow: the tokens of label j behind label i (separator included), for every i < j; empty for single labels.
        none: the tokens of the word for none; None where every answer is exactly one label.
        end_id: the token that ends an answer.
    """

    def __init__(
        self,
        first: Sequence[Sequence[int]],
        follow: dict[tuple[int, int], list[int]],
        none: Sequence[int] | None,
        end_id: int,
    ) -> None:
        self.num_labels, self.multilabel, self.end_id = len(first), none is not None, end_id
        self._segments = {(_START, j): tuple(tokens) for j, tokens in enumerate(first)}
        self._segments |= {pair: tuple(tokens) for pair, tokens in follow.items()}
        if none is not None:
            self._segments[_START, _NONE] = tuple(none)
        starts = [j for i, j in self._segments if i == _START]
        self._start: list[_Reading] = [(frozenset(), _START, j, 0) for j in starts]
        self._forget()

    def _forget(self) -> None:
        self._readings: list[list[_Reading]] = [self._start]
        self._answers: list[frozenset[int] | None] = [None]
        self._children: list[dict[int, int] | None] = [None]

    def trim(self) -> None:
        """Forget all nodes but the root once they are many; whoever holds a node must not call this."""
        if len(self._answers) > MANY_NODES:
            self._forget()

    @property
    def num_answers(self) -> int:
        """How many answers are valid."""
        return 2**self.num_labels if self.multilabel else self.num_labels

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest valid answer, its end token included."""
        ending = np.zeros(self.num_labels, dtype=np.int64)
        for j in range(self.num_labels):
            behind = [ending[i] + len(self._segments[i, j]) for i in range(j) if (i, j) in self._segments]
            ending[j] = max([len(self._segments[_START, j]), *behind])
        return int(max([*ending, len(self._segments.get((_START, _NONE), ()))])) + 1

    def children(self, node: int) -> dict[int, int]:
        """Each token that may come next, and the node it leads to; empty behind the end token."""
        known = self._children[node]
        if known is None:
            known = self._children[node] = self._expand(node)
        return known

    def answer(self, node: int) -> frozenset[int] | None:
        """The labels of the answer that ends here; None at any other node."""
        return self._answers[node]

    def allowed(self, tokens: Sequence[int]) -> list[int]:
        """What may follow these tokens; nothing behind an end token."""
        node = ROOT
        for token in tokens:
            node = self.children(node)[token]
        return list(self.children(node))

    def tokens_of(self, row: NDArray[np.uint8]) -> list[int]:
        """The tokens of one row's answer, end token included."""
        previous, tokens = _START, list[int]()
        for j in map(int, np.flatnonzero(row)):
            tokens += self._segments[previous, j]
            previous = j
        return [*(tokens or self._segments.get((_START, _NONE), ())), self.end_id]

    def _expand(self, node: int) -> dict[int, int]:
        following: dict[int, list[_Reading]] = {}
        ended: set[frozenset[int]] = set()
        for labels, last, target, position in self._readings[node]:
            segment = self._segments[last, target]
            if position < len(segment):
                following.setdefault(segment[position], []).append((labels, last, target, position + 1))
                continue
            labels = labels if target == _NONE else labels | {target}
            ended.add(labels)
            for j in range(target + 1, self.num_labels) if target != _NONE and self.multilabel else ():
                following.setdefault(self._segments[target, j][0], []).append((labels, target, j, 1))
        if len(ended) > 1 or self.end_id in following:
            raise UserError(
                "task: two different answers are the same tokens for this model's tokenizer; rename a label, or change "
                "task.label_separator or task.none_word"
            )
        kids = {token: self._new(readings, None) for token, readings in following.items()}
        for labels in ended:
            kids[self.end_id] = self._new([], labels)
        return kids

    def _new(self, readings: list[_Reading], answer: frozenset[int] | None) -> int:
        self._readings.append(readings)
        self._answers.append(answer)
        self._children.append(None)
        return len(self._answers) - 1


def check_answers(style: PromptStyle, label_names: Sequence[str]) -> None:
    """Refuse labels that cannot be written as answers and read back.

    Raises:
        UserError: an empty label, two that read alike, one that holds the separator or equals the word for none.
    """
    seen: dict[str, str] = {}
    separator, none_word = normalise(style.separator), normalise(style.none_word)
    for name in label_names:
        plain = normalise(name)
        if not plain:
            raise UserError(
                "task=label_generation: a label is empty; give every label a name, for instance in data.labels"
            )
        if plain in seen:
            raise UserError(
                f"task=label_generation: the labels {seen[plain]!r} and {name!r} read alike (letter case and blanks do "
                "not count in an answer); rename one"
            )
        seen[plain] = name
        if style.multilabel and separator in plain:
            other = "; " if ";" not in style.separator else " | "
            raise UserError(
                f"task.label_separator={style.separator!r} stands inside the label {name!r}; take one that no label "
                f'holds, such as task.label_separator="{other}"'
            )
        if style.multilabel and plain == none_word:
            raise UserError(
                f"task.none_word={style.none_word!r} is also the label {name!r}; take a word that is no label"
            )
    _check_read_back(style, label_names)


def _check_read_back(style: PromptStyle, label_names: Sequence[str]) -> None:
    for row in _short_rows(len(label_names), style.multilabel):
        answer = render_answer(style, row, label_names)
        read, valid = parse_answer(style, answer, label_names)
        if not valid or (read != row).any():
            raise UserError(
                f"task=label_generation: the answer {answer!r} cannot be read back as the labels it stands for; rename "
                "the label, or change task.label_separator"
            )


def _short_rows(num_labels: int, multilabel: bool) -> list[NDArray[np.uint8]]:
    """A row for each label and, where there can be several, for each pair and for none."""
    chosen: list[tuple[int, ...]] = [(j,) for j in range(num_labels)]
    if multilabel:
        chosen += [(), *combinations(range(num_labels), 2)]
    rows = np.zeros((len(chosen), num_labels), dtype=np.uint8)
    for row, labels in zip(rows, chosen, strict=True):
        row[list(labels)] = 1
    return list(rows)


def answer_trie(tokenizer: PreTrainedTokenizerBase, style: PromptStyle, label_names: Sequence[str]) -> AnswerTrie:
    """The trie of the answers that `style` allows, each label tokenised as it is behind the one before it.

    Raises:
        UserError: the labels cannot be told apart as text or as tokens, or the tokenizer has no end token.
    """
    check_answers(style, label_names)
    end_id = answer_end_id(tokenizer, style, label_names)
    if end_id is None:
        raise UserError(
            "task=label_generation needs a tokenizer with an end-of-text token or a chat template, so that an answer "
            "can end, and this model's has neither; take another model, or task=multilabel_head"
        )
    rows = _short_rows(len(label_names), style.multilabel)
    encoded = encode_answers(tokenizer, style, label_names, [render_answer(style, row, label_names) for row in rows])
    whole = {tuple(map(int, np.flatnonzero(row))): ids[:-1] for row, ids in zip(rows, encoded, strict=True)}
    follow = {
        (i, j): _behind(tokenizer, style, whole[i,], whole[i, j], label_names[j])
        for i, j in (labels for labels in whole if len(labels) == 2)
    }
    first = [whole[j,] for j in range(len(label_names))]
    trie = AnswerTrie(first, follow, whole.get(()) if style.multilabel else None, end_id)
    _check_tokens(tokenizer, style, label_names, trie, rows)
    if style.constrained and any(trie.tokens_of(row) != ids for row, ids in zip(rows, encoded, strict=True)):
        notice_once(
            "task.decoding=constrained: this tokenizer merges a separator with the label before it; answers are "
            "written label by label, in training too"
        )
    return trie


def _behind(
    tokenizer: PreTrainedTokenizerBase, style: PromptStyle, before: list[int], both: list[int], name: str
) -> list[int]:
    """The tokens of a label behind another: what a pair adds to its first label."""
    if both[: len(before)] == before and len(both) > len(before):
        return both[len(before) :]
    # Merged across the border: the separator and the label as they stand alone.
    return list(tokenizer(style.separator + name, add_special_tokens=False)["input_ids"])


def _check_tokens(
    tokenizer: PreTrainedTokenizerBase,
    style: PromptStyle,
    label_names: Sequence[str],
    trie: AnswerTrie,
    rows: Sequence[NDArray[np.uint8]],
) -> None:
    for row in rows:
        text = tokenizer.decode(trie.tokens_of(row), skip_special_tokens=True)
        read, valid = parse_answer(style, text, label_names)
        if not valid or (read != row).any():
            answer = render_answer(style, row, label_names)
            raise UserError(
                f"task=label_generation: this model's tokenizer turns the answer {answer!r} into {text.strip()!r}; "
                "rename the label, or change task.label_separator or task.none_word"
            )
