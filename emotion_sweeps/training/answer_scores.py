"""Label probabilities of a generator: what it gives to all valid answers, walked as a trie with a key-value cache.

    P(label | text) = sum over the valid answers with the label of p(answer | text) / the same over all valid answers

p(answer) is the product of the model's own token probabilities, end token included, so for single-label tasks this is
the softmax over the labels' log-probabilities. `exact_marginals` visits every answer; prefixes are scored once, and
those with the least probability are left out while all that was left out is at most `tolerance` of what was found: the
error of every marginal is then at most that share, which is returned (tolerance 0 leaves nothing out).
`sampled_marginals` draws K answers from the constrained model and weighs each by the probability that the constraint
took away on its way (self-normalised importance sampling), and states the standard error.
Cost in tokens a text: at most all nodes of the trie (about 6,000 for 11 labels), or K times an answer's length less
what samples share.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotion_sweeps.data.answers import ROOT, AnswerTrie
from emotion_sweeps.data.batches import plan_evaluation
from emotion_sweeps.data.tokens import pad_batch

ROWS_PER_TEXT = 4  # rows of one forward pass over single tokens, for each text of an evaluation batch
Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Marginals:
    """Probabilities `(num_examples, num_labels)`; `error` of the same shape: a bound (exact) or a standard error
    (sampled); `tokens`: answer tokens that were scored; `effective` `(num_examples,)`: the number of equally weighted
    draws that the weighted ones are worth, infinite for enumeration. Where it is small, the standard error is too."""

    probabilities: Array
    error: Array
    tokens: int
    effective: Array


@dataclass(frozen=True)
class _Steps:
    """The continuations of some rows: from which row, of which text, by which token, to which node."""

    row: Indices
    text: Indices
    token: Indices
    node: Indices
    log_p: Array  # of the token, by the model


class _Search(Protocol):
    """Decides which continuations are followed, and collects the answers that ended."""

    def choose(self, steps: _Steps, state: list[Any]) -> tuple[Indices, list[Any]]:
        """The continuations to follow (positions in `steps`) and their states, given the states of the rows."""


def exact_marginals(
    model: Any, trie: AnswerTrie, prompt_ids: Sequence[list[int]], *, tolerance: float = 0.0, **where: Any
) -> Marginals:
    """Every label's probability by enumeration of the valid answers, within `tolerance`.

    Args:
        model: a causal language model in eval mode.
        tolerance: what may be left out, as a share of the probability of all valid answers; 0 leaves nothing out.
        where: `pad_id`, `batch_size` (texts) and `device`.
    """
    probabilities = np.zeros((len(prompt_ids), trie.num_labels))
    error, tokens = np.zeros_like(probabilities), 0
    for batch, walk in _batches(model, trie, prompt_ids, **where):
        search = _Enumeration(trie, len(batch), tolerance)
        tokens += walk.run(search, [0.0] * len(batch))
        probabilities[batch], left_out = search.marginals()
        error[batch] = left_out[:, None]
    return Marginals(probabilities, error, tokens, np.full(len(probabilities), np.inf))


def sampled_marginals(
    model: Any, trie: AnswerTrie, prompt_ids: Sequence[list[int]], *, samples: int, seed: int, **where: Any
) -> Marginals:
    """Every label's probability from `samples` constrained answers a text, with its standard error.

    The draws of a text depend on the seed and its place alone. They are stratified, so the error, which is that of
    independent draws, is if anything too large.
    """
    probabilities = np.zeros((len(prompt_ids), trie.num_labels))
    error, effective, tokens = np.zeros_like(probabilities), np.zeros(len(probabilities)), 0
    for batch, walk in _batches(model, trie, prompt_ids, **where):
        search = _Sampling(trie, len(batch))
        draws = [(0.0, _strata(samples, [seed, row])) for row in batch]
        tokens += walk.run(search, draws)
        probabilities[batch], error[batch], effective[batch] = search.marginals()
    return Marginals(probabilities, error, tokens, effective)


def _strata(samples: int, seed: list[int]) -> Array:
    return (np.arange(samples) + np.random.default_rng(seed).random(samples)) / samples


class _Enumeration:
    """All answers; a row's state is the log-probability of its prefix."""

    def __init__(self, trie: AnswerTrie, num_texts: int, tolerance: float) -> None:
        self.trie, self.tolerance = trie, tolerance
        self.found = _Found(num_texts, trie.num_labels)
        self.log_left_out = np.full(num_texts, -np.inf)

    def choose(self, steps: _Steps, state: list[Any]) -> tuple[Indices, list[Any]]:
        """Everything but the least probable prefixes that together stay within the tolerance."""
        log_mass = np.asarray(state, np.float64)[steps.row] + steps.log_p
        going = self.found.take(self.trie, steps, log_mass)
        if self.tolerance > 0 and len(going):
            parts = [self._prune(going[steps.text[going] == text], log_mass, text) for text in set(steps.text[going])]
            going = np.sort(np.concatenate(parts))
        return going, list(log_mass[going])

    def _prune(self, going: Indices, log_mass: Array, text: int) -> Indices:
        order = going[np.argsort(log_mass[going], kind="stable")]
        would_be_out = np.logaddexp(self.log_left_out[text], np.logaddexp.accumulate(log_mass[order]))
        dropped = int((would_be_out <= self.found.log_total[text] + np.log(self.tolerance)).sum())
        if dropped:
            self.log_left_out[text] = would_be_out[dropped - 1]
        return np.asarray(order[dropped:])

    def marginals(self) -> tuple[Array, Array]:
        """Probabilities, and a bound on their error a text."""
        both = np.logaddexp(self.found.log_total, self.log_left_out)
        return self.found.ratio(), np.exp(self.log_left_out - both)


class _Sampling:
    """Draws; a row's state is the log-weight of its prefix and the draws that go through it, as numbers in [0, 1)."""

    def __init__(self, trie: AnswerTrie, num_texts: int) -> None:
        self.trie, self.num_texts = trie, num_texts
        self.ended: list[tuple[int, frozenset[int], float, int]] = []  # text, labels, log-weight, draws

    def choose(self, steps: _Steps, state: list[Any]) -> tuple[Indices, list[Any]]:
        """The continuations that at least one draw takes."""
        kept, states = list[int](), list[Any]()
        bounds = np.flatnonzero(np.diff(steps.row, prepend=-1, append=-1))
        for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
            log_weight, draws = state[steps.row[begin]]
            log_p = steps.log_p[begin:end]
            log_allowed = float(np.logaddexp.reduce(log_p))
            upper = np.cumsum(np.exp(log_p - log_allowed))
            taken = np.minimum(np.searchsorted(upper, draws, side="right"), end - begin - 1)
            for child in np.unique(taken):
                lower, width = upper[child - 1] if child else 0.0, np.exp(log_p[child] - log_allowed)
                inside = np.clip((draws[taken == child] - lower) / width, 0.0, np.nextafter(1.0, 0.0))
                position = int(begin + child)
                answer = self.trie.answer(int(steps.node[position]))
                if answer is None:
                    kept.append(position)
                    states.append((log_weight + log_allowed, inside))
                else:
                    self.ended.append((int(steps.text[position]), answer, log_weight + log_allowed, len(inside)))
        return np.asarray(kept, np.int64), states

    def marginals(self) -> tuple[Array, Array, Array]:
        """Probabilities, their standard errors (delta method for a ratio of means), and effective draws."""
        texts = np.array([text for text, *_ in self.ended])
        has = np.zeros((len(self.ended), self.trie.num_labels))
        for row, (_, labels, _, _) in zip(has, self.ended, strict=True):
            row[list(labels)] = 1
        log_weight = np.array([log_weight for _, _, log_weight, _ in self.ended])
        draws = np.array([count for *_, count in self.ended], np.float64)
        mean, effective = np.zeros((self.num_texts, self.trie.num_labels)), np.zeros(self.num_texts)
        error = np.zeros_like(mean)
        for text in range(self.num_texts):
            own = texts == text
            weight = np.exp(log_weight[own] - log_weight[own].max())
            total = float((draws[own] * weight).sum())
            mean[text] = (draws[own] * weight) @ has[own] / total
            error[text] = np.sqrt((draws[own] * weight**2) @ (has[own] - mean[text]) ** 2) / total
            effective[text] = total**2 / float((draws[own] * weight**2).sum())
        return mean, error, effective


class _Found:
    """Log-sums over ended answers, of all and of those with each label."""

    def __init__(self, num_texts: int, num_labels: int) -> None:
        self.log_total = np.full(num_texts, -np.inf)
        self.log_with = np.full((num_texts, num_labels), -np.inf)

    def take(self, trie: AnswerTrie, steps: _Steps, log_mass: Array) -> Indices:
        """Add up the answers that end here; returns the continuations that go on."""
        going = np.ones(len(steps.node), dtype=bool)
        for position, (text, node) in enumerate(zip(steps.text.tolist(), steps.node.tolist(), strict=True)):
            labels = trie.answer(node)
            if labels is not None:
                going[position] = False
                self.log_total[text] = np.logaddexp(self.log_total[text], log_mass[position])
                chosen = list(labels)
                self.log_with[text, chosen] = np.logaddexp(self.log_with[text, chosen], log_mass[position])
        return np.flatnonzero(going)

    def ratio(self) -> Array:
        """Each label's share of the total."""
        return np.asarray(np.exp(self.log_with - self.log_total[:, None]))


def _batches(
    model: Any, trie: AnswerTrie, prompt_ids: Sequence[list[int]], *, pad_id: int, batch_size: int, device: torch.device
) -> Iterator[tuple[list[int], _Walk]]:
    for batch in plan_evaluation([len(row) for row in prompt_ids], batch_size):
        trie.trim()
        yield batch, _Walk(model, trie, [prompt_ids[row] for row in batch], pad_id, device, ROWS_PER_TEXT * batch_size)


class _Walk:
    """Follows a trie for a batch of prompts, at most `max_rows` prefixes a forward pass, deepest first."""

    def __init__(
        self, model: Any, trie: AnswerTrie, prompts: list[list[int]], pad_id: int, device: torch.device, max_rows: int
    ) -> None:
        self.model, self.trie, self.device, self.max_rows = model, trie, device, max_rows
        ids, mask = pad_batch(prompts, pad_id, "left")
        self.ids, self.mask = torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)

    def run(self, search: _Search, state: list[Any]) -> int:
        """Walk from the prompts' ends; returns how many answer tokens were scored."""
        tokens = 0
        with torch.inference_mode():
            texts = np.arange(len(self.ids))
            positions = (self.mask.cumsum(1) - 1).clamp(min=0)
            cache, log_p = self._forward(self.ids, self.mask, positions, None)
            waiting = self._expand(search, cache, texts, np.full(len(texts), ROOT), log_p, state, depth=0)
            while waiting:
                parent_cache, rows, texts, node, token, state, depth = waiting.pop()
                tokens += len(rows)
                chosen = torch.from_numpy(texts).to(self.device)
                seen = torch.cat([self.mask[chosen], self.mask.new_ones(len(rows), depth)], 1)
                ids = torch.from_numpy(token).to(self.device)[:, None]
                own = _selected(parent_cache, torch.from_numpy(rows).to(self.device))
                cache, log_p = self._forward(ids, seen, seen.sum(1, keepdim=True) - 1, own)
                waiting += self._expand(search, cache, texts, node, log_p, state, depth=depth)
        return tokens

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Any, Tensor]:
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.past_key_values, out.logits[:, -1]

    def _expand(
        self,
        search: _Search,
        cache: Any,
        texts: Indices,
        nodes: Indices,
        logits: Tensor,
        state: list[Any],
        *,
        depth: int,
    ) -> list[Any]:
        """The work that follows from these rows, in pieces of at most `max_rows`."""
        steps = self._steps(texts, nodes, logits)
        kept, states = search.choose(steps, state)
        work = []
        for begin in range(0, len(kept), self.max_rows):
            piece = kept[begin : begin + self.max_rows]
            rows = (steps.row[piece], steps.text[piece], steps.node[piece], steps.token[piece])
            work.append((cache, *rows, states[begin : begin + self.max_rows], depth + 1))
        return work

    def _steps(self, texts: Indices, nodes: Indices, logits: Tensor) -> _Steps:
        kids = [self.trie.children(node) for node in nodes.tolist()]
        row = np.repeat(np.arange(len(kids)), [len(own) for own in kids])
        token = np.array([token for own in kids for token in own], np.int64)
        node = np.array([node for own in kids for node in own.values()], np.int64)
        logits = logits.float()
        scores = logits[torch.from_numpy(row).to(self.device), torch.from_numpy(token).to(self.device)]
        log_p = scores - logits.logsumexp(-1)[torch.from_numpy(row).to(self.device)]
        return _Steps(row, texts[row], token, node, log_p.double().cpu().numpy())


def _selected(cache: Any, rows: Tensor) -> Any:
    """A cache of these rows of another, which stays as it is."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(rows)
    return chosen
