"""Prompt templates: token ids of instructions, conversations and answers.

Training, scoring, chat and serving use the same template. User text is encoded as ordinary text; only the template
places special tokens, so no message can contain one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.data.conversations import earlier
from pipeline.errors import UserError

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
    """A layout of prompt and answer."""

    pieces: Callable[[str, str], list[Piece]]
    """(instruction, input) -> the prompt, up to the answer."""
    system: Callable[[str], list[Piece]]
    """System message -> the prefix of the first turn."""
    opens: str
    """Prefix of the answer."""
    end: str | None
    """The special token that ends an answer; None: end-of-text."""


TEMPLATES = {
    # An answer starts with a space, as in Llama 2's layout: a word inside running text has that space in its token, and
    # adapters that leave the vocabulary's rows frozen can only produce tokens that pretraining taught. For the
    # same reason an answer ends with end-of-text and not with a marker that occurs in no pretraining text.
    "chat": Template(_chat, lambda text: [("<|system|>",), text, ("<|end|>",)], " ", None),
    "alpaca": Template(_alpaca, lambda text: [f"{text}\n\n"], "", None),
}


def stop_id(tokenizer: Any, template: str) -> int:
    """The id that ends an answer."""
    name = TEMPLATES[template].end
    return int(tokenizer.end_of_text) if name is None else _special(tokenizer, name, template)


def prompt_ids(tokenizer: Any, template: str, instruction: str, given: str) -> list[int]:
    """Ids of the prompt, up to the answer; where `given` holds a conversation, earlier turns with their answers.

    Raises:
        UserError: the vocabulary lacks a special token of the template (use `alpaca`).
    """
    *before, (prompt, _) = turns(tokenizer, template, instruction, given, "")
    return [i for asked, answered in before for i in asked + answered] + prompt


def turns(
    tokenizer: Any, template: str, instruction: str, given: str, output: str
) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, answer ids) of every turn, oldest first; a system message is a prefix of the first prompt."""
    layout, conversation = TEMPLATES[template], earlier(given)
    if conversation is None:
        asked = [(layout.pieces(instruction, given), output)]
    else:
        said = [*conversation.turns, (instruction, output)]
        asked = [(layout.pieces(question, ""), answer) for question, answer in said]
        if conversation.system:
            asked[0] = (layout.system(conversation.system) + asked[0][0], asked[0][1])
    return [(_ids(tokenizer, template, pieces), answer_ids(tokenizer, template, answer)) for pieces, answer in asked]


def _ids(tokenizer: Any, template: str, pieces: list[Piece]) -> list[int]:
    ids: list[int] = []
    for piece in pieces:
        if isinstance(piece, tuple):
            ids.append(_special(tokenizer, piece[0], template))
        else:
            ids.extend(tokenizer.encode(piece))
    return ids


def answer_ids(tokenizer: Any, template: str, output: str) -> list[int]:
    """Ids of an answer, the token that ends it included."""
    return [*tokenizer.encode(TEMPLATES[template].opens + output), stop_id(tokenizer, template)]


def answer_text(template: str, text: str) -> str:
    """A generated text (or its first piece) without the prefix of an answer."""
    return text.removeprefix(TEMPLATES[template].opens)


def _special(tokenizer: Any, name: str, template: str) -> int:
    if name not in tokenizer.special:
        raise UserError(
            f"template {template!r} needs the special token {name}, the vocabulary has "
            f"{', '.join(tokenizer.special)}; set template: alpaca in the recipe's objective"
        )
    return int(tokenizer.special[name])
