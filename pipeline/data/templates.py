"""How an instruction and its answer become token ids, and which of them are learned.

A template is the same for training, scoring, chatting and serving. User text is encoded as ordinary text; only the
template places special tokens, so nobody can write a marker into a message.
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
    """One layout of prompt and answer."""

    pieces: Callable[[str, str], list[Piece]]
    """(instruction, input) -> everything up to the answer."""
    system: Callable[[str], list[Piece]]
    """Standing instruction -> what stands before the first turn."""
    opens: str
    """What stands before the answer's first word."""
    end: str | None
    """The special token that ends an answer; none: end-of-text."""


TEMPLATES = {
    # An answer starts with a space, as in Llama 2's layout: a word inside running text has that space in its token, and
    # adapters that leave the vocabulary's rows frozen can only say what pretraining taught the model to say. For the
    # same reason an answer ends with end-of-text and not with a marker that no text ever showed.
    "chat": Template(_chat, lambda text: [("<|system|>",), text, ("<|end|>",)], " ", None),
    "alpaca": Template(_alpaca, lambda text: [f"{text}\n\n"], "", None),
}


def stop_id(tokenizer: Any, template: str) -> int:
    """The id that ends an answer."""
    name = TEMPLATES[template].end
    return tokenizer.end_of_text if name is None else _special(tokenizer, name, template)


def prompt_ids(tokenizer: Any, template: str, instruction: str, given: str) -> list[int]:
    """Ids of everything up to the answer; earlier turns, where `given` holds a conversation, with their answers.

    Raises:
        UserError: the vocabulary has no such special token (use `alpaca`).
    """
    *before, (prompt, _) = turns(tokenizer, template, instruction, given, "")
    return [i for asked, answered in before for i in asked + answered] + prompt


def turns(
    tokenizer: Any, template: str, instruction: str, given: str, output: str
) -> list[tuple[list[int], list[int]]]:
    """Prompt and answer of every turn, oldest first, as ids; a standing instruction opens the first prompt."""
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
