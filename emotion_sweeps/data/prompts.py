"""Prompts for label generation: instruction, text and answer, and the answer read back as labels.

Where the tokenizer has a chat template (and the style wants it) the instruction is the system turn, or
opens the user turn where the template refuses or drops a system role; else the three stand on lines of
their own. The prompt is rendered once with a mark in the text's place, so a corpus costs one template call.
Every answer ends with the template's end of turn (else end-of-text), so at least one token a row is
supervised; where a row is too long, the text is shortened, never the instruction or the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
    """How a task is put to the model; `{labels}` and `{none}` in the instruction are filled in."""

    instruction: str = INSTRUCTION
    separator: str = ", "
    none_word: str = "none"
    use_chat_template: bool = True


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
    position_of = {_normalise(name): index for index, name in enumerate(label_names)}
    none_word = _normalise(style.none_word)
    pieces = _pieces(style, text, label_names)
    labels = [position_of[piece] for piece in pieces if piece in position_of]
    row[labels] = 1
    if pieces == [none_word] and none_word not in position_of:
        return row, True
    return row, bool(pieces) and len(labels) == len(pieces)


def answer_end_id(tokenizer: PreTrainedTokenizerBase, style: PromptStyle, label_names: Sequence[str]) -> int | None:
    """The token that ends an answer: the chat template's end of turn, else end-of-text (None if there is neither)."""
    return _frame(style, label_names, tokenizer).end_id


def encode_generation(
    tokenizer: PreTrainedTokenizerBase,
    style: PromptStyle,
    texts: Sequence[str],
    labels: NDArray[np.uint8],
    label_names: Sequence[str],
    max_length: int,
) -> GenerationRows:
    """Token ids of prompts and answers, prompt and answer together at most `max_length` long.

    Raises:
        UserError: instruction and answer alone are longer than `max_length`.
    """
    frame = _frame(style, label_names, tokenizer)
    answers = [render_answer(style, row, label_names) for row in labels]
    rows = GenerationRows(*_encode(tokenizer, frame, texts, answers))
    for index, (prompt, answer) in enumerate(zip(rows.prompt_ids, rows.answer_ids, strict=True)):
        if len(prompt) + len(answer) > max_length:
            shorter = _shorten(tokenizer, frame, texts[index], answers[index], max_length)
            rows.prompt_ids[index], rows.answer_ids[index] = shorter
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

    def render(self, text: str) -> str:
        """The prompt of one text; control tokens spelt out in it are broken up, so a text cannot end its turn."""
        text = text.strip()
        if self.special is not None:
            text = self.special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return self.before + text + self.after


def _frame(style: PromptStyle, label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase | None) -> _Frame:
    instruction = style.instruction.replace("{labels}", ", ".join(label_names)).replace("{none}", style.none_word)
    if tokenizer is None:
        return _Frame(f"{instruction}\nText: ", "\nAnswer:", " ", None, None, None)
    bos = tokenizer.bos_token_id
    bos_id = bos if bos is not None and tokenizer("")["input_ids"][:1] == [bos] else None
    special = _special_tokens(tokenizer)
    pattern = re.compile("|".join(map(re.escape, special))) if special else None
    if not (style.use_chat_template and tokenizer.chat_template):
        return _Frame(f"{instruction}\nText: ", "\nAnswer:", " ", tokenizer.eos_token_id, bos_id, pattern)
    turns = _turns(tokenizer, instruction)
    before, after = _render(tokenizer, turns, answering=True).split(_TEXT_MARK)
    closed = _render(tokenizer, [*turns, {"role": "assistant", "content": _ANSWER_MARK}], answering=False)
    end = re.search("|".join(map(re.escape, special)), closed.split(_ANSWER_MARK)[1]) if special else None
    end_id = tokenizer.convert_tokens_to_ids(end[0]) if end else tokenizer.eos_token_id
    return _Frame(before, after, "", end_id, bos_id, pattern)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Every control token as it is spelt, the longest first."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *added}, key=lambda token: (-len(token), token))


def _turns(tokenizer: PreTrainedTokenizerBase, instruction: str) -> list[dict[str, str]]:
    """System and user turn; the user turn alone where the template raises on a system role, or leaves it out."""
    from jinja2.exceptions import TemplateError

    user = {"role": "user", "content": f"Text: {_TEXT_MARK}\nAnswer:"}
    turns = [{"role": "system", "content": instruction}, user]
    try:
        if instruction.strip() in _render(tokenizer, turns, answering=True):
            return turns
    except TemplateError:
        pass
    return [{"role": "user", "content": f"{instruction}\n{user['content']}"}]


def _render(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, answering: bool) -> str:
    # enable_thinking: Qwen3's template then closes the thinking block itself; other templates ignore it.
    rendered = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=answering, enable_thinking=False
    )
    return str(rendered)


def _encode(
    tokenizer: PreTrainedTokenizerBase, frame: _Frame, texts: Sequence[str], answers: Sequence[str]
) -> tuple[list[list[int]], list[list[int]]]:
    """Prompt and answer ids; every different answer is tokenised once."""
    if not texts:
        return [], []
    ids_of = {answer: _answer_ids(tokenizer, frame, answer) for answer in set(answers)}
    prompts = tokenizer([frame.render(text) for text in texts], add_special_tokens=False)["input_ids"]
    bos = [] if frame.bos_id is None else [frame.bos_id]
    return [prompt if prompt[:1] == bos else bos + prompt for prompt in prompts], [list(ids_of[a]) for a in answers]


def _answer_ids(tokenizer: PreTrainedTokenizerBase, frame: _Frame, answer: str) -> list[int]:
    """An answer as it is tokenised behind the end of a prompt, because there the model has to write it."""
    end = [] if frame.end_id is None else [frame.end_id]
    target = frame.lead + answer
    alone, joined = tokenizer([frame.after, frame.after + target], add_special_tokens=False)["input_ids"]
    if joined[: len(alone)] == alone:
        return [*joined[len(alone) :], *end]
    # The tokenizer merges across the border, but at prediction time the prompt stands alone.
    return [*tokenizer(target, add_special_tokens=False)["input_ids"], *end]


def _shorten(
    tokenizer: PreTrainedTokenizerBase, frame: _Frame, text: str, answer: str, max_length: int
) -> tuple[list[int], list[int]]:
    """The ids of one row with as much of the text's beginning as fits."""
    text = text.strip()
    prompt, target = _encode_one(tokenizer, frame, "", answer)
    room = max_length - len(prompt) - len(target)
    if room < 0:
        raise UserError(
            f"data.max_length={max_length} has no room for the instruction and an answer, which take"
            f" {len(prompt) + len(target)} tokens; raise it, or shorten task.instruction"
        )
    keep, fixed = len(text), max_length - room
    while True:
        prompt, target = _encode_one(tokenizer, frame, text[:keep], answer)
        total = len(prompt) + len(target)
        if total <= max_length:
            return prompt, target
        keep = min(keep - 1, keep * room // max(1, total - fixed))


def _encode_one(
    tokenizer: PreTrainedTokenizerBase, frame: _Frame, text: str, answer: str
) -> tuple[list[int], list[int]]:
    prompts, answers = _encode(tokenizer, frame, [text], [answer])
    return prompts[0], answers[0]


@lru_cache(maxsize=32)
def _answer_pattern(style: PromptStyle, label_names: tuple[str, ...]) -> tuple[re.Pattern[str], str]:
    """A pattern for one label with the punctuation around it, and the separator as it shows after normalising."""
    separator = _normalise(style.separator) or " "
    loose = f"[{re.escape(_LOOSE.replace(separator, ''))}]*"
    names = sorted({_normalise(name) for name in (*label_names, style.none_word)}, key=lambda name: -len(name))
    words = "|".join(map(re.escape, names))
    return re.compile(f"{loose}({words}){loose}(?={re.escape(separator)}|$)"), separator


def _pieces(style: PromptStyle, text: str, label_names: Sequence[str]) -> list[str]:
    """An answer's parts, normalised: known words where one stands whole (the longest), else up to the separator."""
    pattern, separator = _answer_pattern(style, tuple(label_names))
    pieces: list[str] = []
    for line in map(_normalise, text.splitlines()):
        position = 0
        while position < len(line):
            match = pattern.match(line, position)
            stop = match.end() if match else line.find(separator, position)
            stop = len(line) if stop < 0 else stop
            pieces.append(match[1] if match else line[position:stop].strip(_LOOSE))
            position = stop + len(separator)
    return [piece for piece in pieces if piece]


def _normalise(text: str) -> str:
    return " ".join(text.casefold().split())
