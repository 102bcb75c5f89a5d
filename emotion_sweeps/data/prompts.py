"""Prompts for label generation: instruction, text and answer, and the answer read back as labels.

Where the tokenizer has a chat template (and the style wants it) the instruction is the system turn, or
opens the user turn where the template refuses or drops a system role; else the three stand on lines of
their own. The prompt is rendered once with a mark in the text's place, so a corpus costs one template call.
Every answer ends with the template's end of turn (else end-of-text), so at least one token a row is
supervised; where a row is too long, the text is shortened, never the instruction or the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emotion_sweeps.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTRUCTION = "Classify the emotion in the following text. Choose from: {labels}"
MULTILABEL_INSTRUCTION = (
    "Name every emotion in the following text, separated by commas, or {none} if there is none. Choose from: {labels}"
)
_TEXT_MARK = "\ue000text\ue001"  # private-use characters: no template and no sane text holds them
_ANSWER_MARK = "\ue000answer\ue001"
_LOOSE = " \t.!?:;,'\"`*-()[]"  # punctuation that may surround a label in an answer


@dataclass(frozen=True)
class PromptStyle:
    """How a task is put to the model and answered; `{labels}` and `{none}` in the instruction are filled in."""

    instruction: str = INSTRUCTION
    separator: str = ", "
    none_word: str = "none"
    use_chat_template: bool = True
    multilabel: bool = True  # an answer may hold several labels, or the word for none
    constrained: bool = True  # decoding can write valid answers only
    examples: tuple[tuple[str, str], ...] = ()  # texts with their answers, shown before the text

    def __post_init__(self) -> None:
        # Read from JSON they are lists, and a style is a key of caches.
        object.__setattr__(self, "examples", tuple((str(text), str(answer)) for text, answer in self.examples))


@dataclass(frozen=True)
class GenerationRows:
    """Token ids of every prompt and of every answer (end token included), without padding."""

    prompt_ids: list[list[int]]
    answer_ids: list[list[int]]


def default_instruction(multilabel: bool) -> str:
    """The published wording for one label, and its counterpart for several."""
    return MULTILABEL_INSTRUCTION if multilabel else INSTRUCTION


def render_prompt(
    style: PromptStyle, text: str, label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase | None
) -> str:
    """The prompt up to the place where the answer begins; without a tokenizer, or a template, in plain lines."""
    return _frame(style, label_names, tokenizer).render(text)


def render_answer(style: PromptStyle, label_row: NDArray[np.uint8], label_names: Sequence[str]) -> str:
    """The labels of one row in the order of `label_names`, or the word for none."""
    names = [name for name, flag in zip(label_names, label_row, strict=True) if flag]
    return style.separator.join(names) or style.none_word


def parse_answer(style: PromptStyle, text: str, label_names: Sequence[str]) -> tuple[NDArray[np.uint8], bool]:
    """A generated answer as a multi-hot row, and whether it was exactly labels (or the word for none).

    Letter case, blanks and punctuation around a label do not matter; a label must be there whole. Whatever
    is not one makes the answer invalid, and the labels beside it are kept.
    """
    row = np.zeros(len(label_names), dtype=np.uint8)
    position_of = {normalise(name): index for index, name in enumerate(label_names)}
    none_word = normalise(style.none_word)
    pieces = _pieces(style, text, label_names)
    labels = [position_of[piece] for piece in pieces if piece in position_of]
    row[labels] = 1
    if pieces == [none_word] and none_word not in position_of:
        return row, True
    return row, bool(pieces) and len(labels) == len(pieces)


def answer_end_id(tokenizer: PreTrainedTokenizerBase, style: PromptStyle, label_names: Sequence[str]) -> int | None:
    """The token that ends an answer: the chat template's end of turn, else end-of-text (None if there is neither)."""
    return _frame(style, label_names, tokenizer).end_id


def encode_answers(
    tokenizer: PreTrainedTokenizerBase, style: PromptStyle, label_names: Sequence[str], answers: Sequence[str]
) -> list[list[int]]:
    """Token ids of rendered answers as they stand behind a prompt, end token included."""
    return _answer_ids(tokenizer, _frame(style, label_names, tokenizer), answers)


def encode_generation(
    tokenizer: PreTrainedTokenizerBase,
    style: PromptStyle,
    texts: Sequence[str],
    labels: NDArray[np.uint8],
    label_names: Sequence[str],
    max_length: int,
    *,
    answer_tokens: Callable[[NDArray[np.uint8]], list[int]] | None = None,
) -> GenerationRows:
    """Token ids of prompts and answers, prompt and answer together at most `max_length` long.

    Args:
        answer_tokens: the tokens of a row's answer, where another way to write them is wanted than the tokenizer's.
    Raises:
        UserError: instruction and answer alone are longer than `max_length`.
    """
    frame = _frame(style, label_names, tokenizer)
    if answer_tokens is None:
        answers = [render_answer(style, row, label_names) for row in labels]
        different = sorted(set(answers))
        ids_of = dict(zip(different, _answer_ids(tokenizer, frame, different), strict=True))
        answer_ids = [list(ids_of[answer]) for answer in answers]
    else:
        answer_ids = [answer_tokens(row) for row in labels]
    rows = GenerationRows(_prompt_ids(tokenizer, frame, texts), answer_ids)
    for index, (prompt, answer_row) in enumerate(zip(rows.prompt_ids, rows.answer_ids, strict=True)):
        if len(prompt) + len(answer_row) > max_length:
            rows.prompt_ids[index] = _shorten(tokenizer, frame, texts[index], max_length, len(answer_row))
    return rows


@dataclass(frozen=True)
class _Frame:
    """What surrounds a text and an answer for one tokenizer, style and label set."""

    before: str
    after: str
    lead: str  # what stands between prompt and answer and belongs to the answer
    end_id: int | None
    bos_id: int | None  # to be put in front where the rendered prompt does not begin with it
    special: re.Pattern[str] | None
    before_example: dict[str, str] = field(default_factory=dict)  # for a text that is an example itself: without it

    def render(self, text: str) -> str:
        """The prompt of one text; control tokens spelt out in it are broken up, so a text cannot end its turn."""
        text = text.strip()
        return self.before_example.get(text, self.before) + _harmless(text, self.special) + self.after


def _harmless(text: str, special: re.Pattern[str] | None) -> str:
    return text if special is None else special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def _frame(style: PromptStyle, label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase | None) -> _Frame:
    frame = _frame_with(style, label_names, tokenizer, style.examples)
    for text in {text.strip() for text, _ in style.examples}:
        others = tuple(example for example in style.examples if example[0].strip() != text)
        frame.before_example[text] = _frame_with(style, label_names, tokenizer, others).before
    return frame


def _frame_with(
    style: PromptStyle,
    label_names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase | None,
    examples: tuple[tuple[str, str], ...],
) -> _Frame:
    instruction = style.instruction.replace("{labels}", ", ".join(label_names)).replace("{none}", style.none_word)
    special = [] if tokenizer is None else _special_tokens(tokenizer)
    pattern = re.compile("|".join(map(re.escape, special))) if special else None
    shown = [(_harmless(text.strip(), pattern), answer) for text, answer in examples]
    lines = "".join(f"Text: {text}\nAnswer: {answer}\n" for text, answer in shown)
    plain = f"{instruction}\n{lines}Text: "
    if tokenizer is None:
        return _Frame(plain, "\nAnswer:", " ", None, None, None)
    bos = tokenizer.bos_token_id
    bos_id = bos if bos is not None and tokenizer("")["input_ids"][:1] == [bos] else None
    if not (style.use_chat_template and tokenizer.chat_template):
        return _Frame(plain, "\nAnswer:", " ", tokenizer.eos_token_id, bos_id, pattern)
    turns = _turns(tokenizer, instruction, shown)
    before, after = _render(tokenizer, turns, answering=True).split(_TEXT_MARK)
    closed = _render(tokenizer, [*turns, {"role": "assistant", "content": _ANSWER_MARK}], answering=False)
    end = re.search("|".join(map(re.escape, special)), closed.split(_ANSWER_MARK)[1]) if special else None
    end_id = tokenizer.convert_tokens_to_ids(end[0]) if end else tokenizer.eos_token_id
    return _Frame(before, after, "", end_id, bos_id, pattern)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Every control token as it is spelt, the longest first."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *added}, key=lambda token: (-len(token), token))


def _turns(
    tokenizer: PreTrainedTokenizerBase, instruction: str, examples: Sequence[tuple[str, str]]
) -> list[dict[str, str]]:
    """System turn, a pair of turns for each example, user turn; the instruction opens the first user turn where the
    template raises on a system role, or leaves it out."""
    from jinja2.exceptions import TemplateError

    turns = []
    for text, answer in examples:
        turns += [_user(text), {"role": "assistant", "content": answer}]
    turns.append(_user(_TEXT_MARK))
    with_system = [{"role": "system", "content": instruction}, *turns]
    try:
        if instruction.strip() in _render(tokenizer, with_system, answering=True):
            return with_system
    except TemplateError:
        pass
    return [{"role": "user", "content": f"{instruction}\n{turns[0]['content']}"}, *turns[1:]]


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": f"Text: {text}\nAnswer:"}


def _render(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, answering: bool) -> str:
    # enable_thinking: Qwen3's template then closes the thinking block itself; other templates ignore it.
    rendered = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=answering, enable_thinking=False
    )
    return str(rendered)


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, frame: _Frame, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    prompts = tokenizer([frame.render(text) for text in texts], add_special_tokens=False)["input_ids"]
    bos = [] if frame.bos_id is None else [frame.bos_id]
    return [prompt if prompt[:1] == bos else bos + prompt for prompt in prompts]


def _answer_ids(tokenizer: PreTrainedTokenizerBase, frame: _Frame, answers: Sequence[str]) -> list[list[int]]:
    """Answers as they are tokenised behind the end of a prompt, because there the model has to write them."""
    if not answers:
        return []
    end = [] if frame.end_id is None else [frame.end_id]
    targets = [frame.lead + answer for answer in answers]
    behind = [frame.after, *(frame.after + target for target in targets)]
    alone, *joined = tokenizer(behind, add_special_tokens=False)["input_ids"]
    rows = [ids[len(alone) :] if ids[: len(alone)] == alone else None for ids in joined]
    # Where the tokenizer merges across the border: at prediction time the prompt stands alone.
    loose = iter(_loose_ids(tokenizer, [t for t, ids in zip(targets, rows, strict=True) if ids is None]))
    return [[*(next(loose) if ids is None else ids), *end] for ids in rows]


def _loose_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    return list(tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else []


def _shorten(
    tokenizer: PreTrainedTokenizerBase, frame: _Frame, text: str, max_length: int, answer_length: int
) -> list[int]:
    """The prompt of one row with as much of the text's beginning as fits beside its answer."""
    text = text.strip()
    before = frame.before_example.get(text, frame.before)  # a part of an example is still that example
    frame = replace(frame, before=before, before_example={})
    prompt = _prompt_ids(tokenizer, frame, [""])[0]
    room = max_length - len(prompt) - answer_length
    if room < 0:
        raise UserError(
            f"data.max_length={max_length} has no room for the instruction and an answer, which take"
            f" {len(prompt) + answer_length} tokens; raise it, shorten task.instruction, or lower task.few_shot"
        )
    keep, fixed = len(text), max_length - room
    while True:
        prompt = _prompt_ids(tokenizer, frame, [text[:keep]])[0]
        total = len(prompt) + answer_length
        if total <= max_length:
            return prompt
        keep = min(keep - 1, keep * room // max(1, total - fixed))


@lru_cache(maxsize=32)
def _answer_pattern(style: PromptStyle, label_names: tuple[str, ...]) -> tuple[re.Pattern[str], str]:
    """A pattern for one label with the punctuation around it, and the separator as it shows after normalising."""
    separator = normalise(style.separator) or " "
    loose = f"[{re.escape(_LOOSE.replace(separator, ''))}]*"
    names = sorted({normalise(name) for name in (*label_names, style.none_word)}, key=lambda name: -len(name))
    words = "|".join(map(re.escape, names))
    return re.compile(f"{loose}({words}){loose}(?={re.escape(separator)}|$)"), separator


def _pieces(style: PromptStyle, text: str, label_names: Sequence[str]) -> list[str]:
    """An answer's parts, normalised: known words where one stands whole (the longest), else up to the separator."""
    pattern, separator = _answer_pattern(style, tuple(label_names))
    pieces: list[str] = []
    for line in map(normalise, text.splitlines()):
        position = 0
        while position < len(line):
            match = pattern.match(line, position)
            stop = match.end() if match else line.find(separator, position)
            stop = len(line) if stop < 0 else stop
            pieces.append(match[1] if match else line[position:stop].strip(_LOOSE))
            position = stop + len(separator)
    return [piece for piece in pieces if piece]


def normalise(text: str) -> str:
    """A label or an answer as it is compared: letter case and blanks do not count."""
    return " ".join(text.casefold().split())
