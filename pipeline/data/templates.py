"""How an instruction and its answer become token ids, and which of them are learned.

A template is the same for training, scoring, chatting and serving. User text is encoded as ordinary text; only the
template places special tokens, so nobody can write a marker into a message.
"""

from collections.abc import Callable
from typing import Any

from pipeline.config import UserError

# A piece is text, or the name of a special token in a one-element tuple.
Piece = str | tuple[str]


def _chat(instruction: str, given: str) -> list[Piece]:
    text = f"{instruction}\n{given}" if given else instruction
    return [("<|user|>",), f"\n{text}", ("<|end|>",), "\n", ("<|assistant|>",), "\n"]


def _alpaca(instruction: str, given: str) -> list[Piece]:
    """The layout of Stanford Alpaca (Taori et al. 2023): sections that any vocabulary can spell."""
    middle = f"\n\n### Input:\n{given}" if given else ""
    return [f"### Instruction:\n{instruction}{middle}\n\n### Response:\n"]


TEMPLATES: dict[str, tuple[Callable[[str, str], list[Piece]], str | None]] = {
    # name: (prompt pieces, special token that ends an answer; None: end-of-text)
    # An answer ends with end-of-text, which pretraining has taught: a frozen row of a marker that no text ever showed
    # cannot be given a high logit by an adapter.
    "chat": (_chat, None),
    "alpaca": (_alpaca, None),
}


def stop_id(tokenizer: Any, template: str) -> int:
    """The id that ends an answer."""
    name = TEMPLATES[template][1]
    return tokenizer.end_of_text if name is None else _special(tokenizer, name, template)


def prompt_ids(tokenizer: Any, template: str, instruction: str, given: str) -> list[int]:
    """Ids of everything up to the answer.

    Raises:
        UserError: the vocabulary has no such special token (use `alpaca`).
    """
    ids: list[int] = []
    for piece in TEMPLATES[template][0](instruction, given):
        if isinstance(piece, tuple):
            ids.append(_special(tokenizer, piece[0], template))
        else:
            ids.extend(tokenizer.encode(piece))
    return ids


def answer_ids(tokenizer: Any, template: str, output: str) -> list[int]:
    """Ids of the answer with the token that ends it."""
    return [*tokenizer.encode(output), stop_id(tokenizer, template)]


def _special(tokenizer: Any, name: str, template: str) -> int:
    if name not in tokenizer.special:
        raise UserError(
            f"params.yaml: objective.template {template!r} needs the token {name}, the vocabulary has "
            f"{', '.join(tokenizer.special)}; use template: alpaca"
        )
    return tokenizer.special[name]
