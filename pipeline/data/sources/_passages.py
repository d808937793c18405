"""Passages: documents cut into windows of whole paragraphs, and question-answer pairs read strictly from an answer."""

import json
import re
from collections.abc import Iterator
from typing import Any

from pipeline.data.formats._shape import BadRow

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)]*\s+|\n")
_FENCE = re.compile(r"```[a-z]*")
FIELDS = ("question", "answer")


def passages(text: str, most: int) -> Iterator[str]:
    """Windows of at most `most` characters that hold as many whole paragraphs as fit, in order, without overlap.

    A longer paragraph is cut between sentences, a longer sentence between words, a longer word anywhere.
    """
    window = ""
    for paragraph in _PARAGRAPH.split(text.strip()):
        for piece in _pieces(paragraph.strip(), most):
            if window and len(window) + 2 + len(piece) > most:
                yield window
                window = ""
            window = f"{window}\n\n{piece}" if window else piece
    if window:
        yield window


def _pieces(paragraph: str, most: int) -> Iterator[str]:
    """The paragraph, or parts of at most `most` characters where it is longer."""
    while len(paragraph) > most:
        ends = [match.end() for match in _SENTENCE.finditer(paragraph) if match.end() <= most + 1]
        space = paragraph.rfind(" ", 1, most + 1)
        end = ends[-1] if ends else space if space > 0 else most
        yield paragraph[:end].strip()
        paragraph = paragraph[end:].strip()
    if paragraph:
        yield paragraph


def pairs(answer: str, cut: bool) -> Iterator[tuple[int, dict[str, str] | BadRow]]:
    """The lines of an answer, each with its number: a pair {question, answer}, or the reason of its rejection.

    Strict JSON lines: an object with exactly the fields question and answer, both of them text. Blank lines and a code
    fence around the lines are skipped.

    Args:
        answer: the model's text.
        cut: whether the answer ended at max_tokens, so that its last line may be incomplete.
    """
    lines = [(number, line.strip()) for number, line in enumerate(answer.split("\n"), 1) if line.strip()]
    if len(lines) > 1 and _FENCE.fullmatch(lines[0][1]) and lines[-1][1] == "```":
        lines = lines[1:-1]
    if not lines:
        yield 1, BadRow("no_answer", "the answer is empty; expected JSON lines")
    questions = set()
    for number, line in lines:
        pair = _pair(line)
        if isinstance(pair, BadRow):
            if cut and number == lines[-1][0]:
                pair = BadRow("cut_off", f"the answer ended at max_tokens, in {line[-40:]!r}; expected a whole line")
        elif pair["question"] in questions:
            pair = BadRow("repeated", f"the question {pair['question']!r:.80} is asked twice in this answer")
        else:
            questions.add(pair["question"])
        yield number, pair


def _pair(line: str) -> dict[str, str] | BadRow:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return BadRow("not_json", f"{line!r:.80} is no JSON; expected an object with question and answer")
    if not isinstance(value, dict) or set(value) != set(FIELDS):
        found = f"an object with {', '.join(map(str, value))}" if isinstance(value, dict) else type(value).__name__
        return BadRow("other_fields", f"found {found:.80}; expected an object with question and answer")
    for name in FIELDS:
        text = value[name]
        if not isinstance(text, str) or not text.strip():
            found = "empty" if isinstance(text, str) else f"{type(text).__name__} {text!r:.40}"
            return BadRow("not_text", f"{name} is {found}; expected text")
        if (fault := unwritable(text)) is not None:
            return fault
    return {name: value[name].strip() for name in FIELDS}


def unwritable(text: str) -> BadRow | None:
    """The reason why a model's text cannot be a record's, if there is one."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        return BadRow("no_character", f"{text!r:.80} holds a NUL or half of a surrogate pair; expected text")
    return None
