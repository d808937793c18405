"""How an instruction and its answer become token ids, and which of them are learned.

A template is the same for training, scoring, chatting and serving. User text is encoded as ordinary text; only the
template places special tokens, so nobody can write a marker into a message.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.config import UserError

# A piece is text, or the name of a special token in a one-element tuple.
Piece = str | tuple[str]


def _chat(instruction: str, given: str) -> list[Piece]:
    text = f"{instruction}\n{given}" if given else instruction
    return [("<|user|>",), text, ("<|end|>",), ("<|assistant|>",)]


def _alpaca(instruction: str, given: str) -> list[Piece]:
    """The layout of Stanford Alpaca (Taori et al. 2023): sections that any vocabulary can spell."""
    middle = f"\n\n### Input:\n{given}" if given else ""
    return [f"### Instruction:\n{instruction}{middle}\n\n### Response:\n"]


class Template(NamedTuple):
    """One layout of prompt and answer."""

    pieces: Callable[[str, str], list[Piece]]
    """(instruction, input) -> everything up to the answer."""
    opens: str
    """What stands before the answer's first word."""
    end: str | None
    """The special token that ends an answer; none: end-of-text."""


TEMPLATES = {
    # An answer starts with a space, as in Llama 2's layout: a word inside running text has that space in its token, and
    # adapters that leave the vocabulary's rows frozen can only say what pretraining taught the model to say. For the
    # same reason an answer ends with end-of-text and not with a marker that no text ever showed.
    "chat": Template(_chat, " ", None),
    "alpaca": Template(_alpaca, "", None),
}


def stop_id(tokenizer: Any, template: str) -> int:
    """The id that ends an answer."""
    name = TEMPLATES[template].end
    return tokenizer.end_of_text if name is None else _special(tokenizer, name, template)


def prompt_ids(tokenizer: Any, template: str, instruction: str, given: str) -> list[int]:
    """Ids of everything up to the answer.

    Raises:
        UserError: the vocabulary has no such special token (use `alpaca`).
    """
    ids: list[int] = []
    for piece in TEMPLATES[template].pieces(instruction, given):
        if isinstance(piece, tuple):
            ids.append(_special(tokenizer, piece[0], template))
        else:
            ids.extend(tokenizer.encode(piece))
    return ids


def answer_ids(tokenizer: Any, template: str, output: str) -> list[int]:
    """Ids of the answer with the token that ends it."""
    return [*tokenizer.encode(TEMPLATES[template].opens + output), stop_id(tokenizer, template)]


def answer_text(template: str, text: str) -> str:
    """The answer itself in what a model wrote (or in its first piece)."""
    return text.removeprefix(TEMPLATES[template].opens)


def _special(tokenizer: Any, name: str, template: str) -> int:
    if name not in tokenizer.special:
        raise UserError(
            f"params.yaml: objective.template {template!r} needs the token {name}, the vocabulary has "
            f"{', '.join(tokenizer.special)}; use template: alpaca"
        )
    return tokenizer.special[name]
