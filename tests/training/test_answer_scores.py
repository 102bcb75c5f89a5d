"""Label probabilities against exhaustive scoring: every valid answer, one forward pass each, without cache or padding;
constrained decoding against masked greedy decoding one by one."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from emotion_sweeps.data.answers import AnswerTrie, answer_trie
from emotion_sweeps.data.prompts import PromptStyle, encode_generation, parse_answer
from emotion_sweeps.models.load import load_generator
from emotion_sweeps.models.sources import resolve_source
from emotion_sweeps.models.tokenizers import load_tokenizer
from emotion_sweeps.training.answer_scores import exact_marginals, sampled_marginals
from emotion_sweeps.training.decoding import generate_answers

NAMES = ["love", "love of self", "anger", "joy"]
LONG = "the day was long but my friend came and we sang about rain and work and trains until the letters came " * 2
TEXTS = ["so good", "", LONG, "why does this always happen on a monday, he said"]
STYLES = {"several": PromptStyle("Labels: {labels}"), "one": PromptStyle("Labels: {labels}", multilabel=False)}


@pytest.fixture(scope="module", params=["qwen3_tiny", "gemma3_tiny"])
def loaded(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    source = resolve_source(path="unused", twin=request.param)
    tokenizer = load_tokenizer(source, padding_side="left")
    model = load_generator(
        source,
        dtype=torch.float32,
        quantization=None,
        device_map=None,
        attn_implementation="sdpa",
        pad_token_id=tokenizer.pad_token_id,
    )
    return model.eval(), tokenizer


def prompts(tokenizer: Any, style: PromptStyle) -> list[list[int]]:
    labels = np.zeros((len(TEXTS), len(NAMES)), np.uint8)
    return encode_generation(tokenizer, style, TEXTS, labels, NAMES, 400).prompt_ids


def where(tokenizer: Any, batch_size: int = 16) -> dict[str, Any]:
    return {"pad_id": tokenizer.pad_token_id, "batch_size": batch_size, "device": torch.device("cpu")}


def valid_rows(style: PromptStyle) -> np.ndarray:
    if not style.multilabel:
        return np.eye(len(NAMES), dtype=np.uint8)
    return np.array(list(product((0, 1), repeat=len(NAMES))), np.uint8)


def exhaustive(model: Any, trie: AnswerTrie, prompt: list[int], rows: np.ndarray) -> np.ndarray:
    """Log-probability of each answer."""
    scores = []
    for row in rows:
        answer = trie.tokens_of(row)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        scores.append(logits.log_softmax(-1)[range(len(answer)), answer].sum().item())
    return np.array(scores)


def marginals(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    p = np.exp(scores - scores.max())
    return (p / p.sum()) @ rows


@pytest.mark.parametrize("kind", STYLES)
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_enumeration_is_exhaustive_scoring(loaded: tuple[Any, Any], kind: str, batch_size: int) -> None:
    """Batches cut prefixes at every size; Gemma's long prompt is longer than its sliding window."""
    (model, tokenizer), style = loaded, STYLES[kind]
    trie, ids, rows = answer_trie(tokenizer, style, NAMES), prompts(tokenizer, style), valid_rows(STYLES[kind])
    assert max(map(len, ids)) > 64 + trie.longest
    found = exact_marginals(model, trie, ids, **where(tokenizer, batch_size))
    wanted = np.stack([marginals(exhaustive(model, trie, prompt, rows), rows) for prompt in ids])
    np.testing.assert_allclose(found.probabilities, wanted, atol=1e-5)
    assert (found.error == 0).all()
    if kind == "one":
        np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-9)


def test_what_is_left_out_is_bounded_and_saves_work(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    style = STYLES["several"]
    trie, ids = answer_trie(tokenizer, style, NAMES), prompts(tokenizer, style)
    whole = exact_marginals(model, trie, ids, **where(tokenizer))
    for tolerance in (1e-6, 1e-3, 0.2):
        part = exact_marginals(model, trie, ids, tolerance=tolerance, **where(tokenizer))
        assert (part.error <= tolerance).all()
        assert (np.abs(part.probabilities - whole.probabilities) <= part.error + 1e-5).all()
    assert part.tokens < whole.tokens / 2


class Calm:
    """A model with flatter token probabilities that leans towards the tokens of answers, as a trained one does."""

    def __init__(self, model: Any, trie: AnswerTrie) -> None:
        self.model = model
        self.own = sorted({token for row in valid_rows(STYLES["several"]) for token in trie.tokens_of(row)})

    def __call__(self, **inputs: Any) -> Any:
        out = self.model(**inputs)
        out.logits = out.logits * 0.1
        out.logits[..., self.own] += 5
        return out


def test_samples_agree_within_their_error(loaded: tuple[Any, Any]) -> None:
    """The constraint still takes away some of the probability, so unweighted shares of the draws would be wrong."""
    model, tokenizer = loaded
    style = STYLES["several"]
    trie, ids = answer_trie(tokenizer, style, NAMES), prompts(tokenizer, style)
    calm = Calm(model, trie)
    exact = exact_marginals(calm, trie, ids, **where(tokenizer)).probabilities
    runs = [sampled_marginals(calm, trie, ids, samples=200, seed=seed, **where(tokenizer)) for seed in range(12)]
    open_cells = (exact > 0.02) & (exact < 0.98)
    assert open_cells.sum() >= 8
    z = np.stack([((run.probabilities - exact) / run.error)[open_cells] for run in runs])
    assert np.sqrt(np.mean(z**2)) < 1.3
    assert np.abs(z.mean(0)).max() < 4 / np.sqrt(12)
    assert np.mean([run.error for run in runs]) < 0.08
    assert min(run.effective.min() for run in runs) > 20


def test_degenerate_weights_show_in_the_effective_draws(loaded: tuple[Any, Any]) -> None:
    """A random model gives valid answers next to no probability: few draws carry all the weight, and it is said."""
    model, tokenizer = loaded
    style = STYLES["several"]
    trie, ids = answer_trie(tokenizer, style, NAMES), prompts(tokenizer, style)
    found = sampled_marginals(model, trie, ids, samples=200, seed=0, **where(tokenizer))
    assert (found.effective >= 1 - 1e-9).all() and found.effective.min() < 100


def test_draws_depend_on_seed_and_place_alone(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    style = STYLES["several"]
    trie, ids = answer_trie(tokenizer, style, NAMES), prompts(tokenizer, style)
    first = sampled_marginals(model, trie, ids, samples=32, seed=1, **where(tokenizer, 16))
    again = sampled_marginals(
        model, answer_trie(tokenizer, style, NAMES), ids, samples=32, seed=1, **where(tokenizer, 1)
    )
    np.testing.assert_allclose(first.probabilities, again.probabilities, atol=1e-5)
    other = sampled_marginals(model, trie, ids, samples=32, seed=2, **where(tokenizer, 16))
    assert np.abs(first.probabilities - other.probabilities).max() > 0


@pytest.mark.parametrize("kind", STYLES)
@pytest.mark.parametrize("copies", [1, 2])
def test_constrained_decoding_is_masked_greedy_decoding(loaded: tuple[Any, Any], kind: str, copies: int) -> None:
    (model, tokenizer), style = loaded, STYLES[kind]
    trie, ids = answer_trie(tokenizer, style, NAMES), prompts(tokenizer, style)
    answers = generate_answers(
        model,
        tokenizer,
        ids,
        batch_size=3,
        max_new_tokens=1,
        end_ids=[],
        device=torch.device("cpu"),
        copies=copies,
        trie=trie,
    )
    language = {tuple(trie.tokens_of(row)) for row in valid_rows(style)}
    for prompt, answer in zip(ids * copies, answers, strict=True):
        written: list[int] = []
        while tuple(written) not in language:
            following = sorted({path[len(written)] for path in language if list(path[: len(written)]) == written})
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + written])).logits[0, -1]
            written.append(following[int(logits[following].argmax())])
        assert answer == tokenizer.decode(written, skip_special_tokens=True)
        assert parse_answer(style, answer, NAMES)[1]


def test_many_labels_are_decoded_and_sampled_without_enumeration(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    names = [f"label {chr(97 + i)}{i}" for i in range(28)]
    style = STYLES["several"]
    trie = answer_trie(tokenizer, style, names)
    assert trie.num_answers == 2**28
    ids = prompts(tokenizer, style)[:2]
    found = sampled_marginals(model, trie, ids, samples=16, seed=0, **where(tokenizer))
    assert found.probabilities.shape == (2, 28) and np.isfinite(found.probabilities).all()
    assert 0 < found.probabilities.max() <= 1 + 1e-9
    options = {"batch_size": 2, "max_new_tokens": 1, "end_ids": [], "device": torch.device("cpu")}
    answers = generate_answers(model, tokenizer, ids, **options, trie=trie)
    assert all(parse_answer(style, answer, names)[1] for answer in answers)
