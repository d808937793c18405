"""The part of a tokenizer that prompts need, the ids of a prompt, and the removal of a text's middle."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from pipeline.tokenizer.chat_template import ChatTemplate


class Vocabulary(Protocol):
    """The part of a tokenizer that prompts need."""

    special: dict[str, int]
    end_of_text: int

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The chat template of the tokenizer's folder."""

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text."""

    def encode_after_special(self, text: str) -> list[int]:
        """Ids of ordinary text that follows a special token."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; U+FFFD for a letter that is cut in two."""


class Prompt(NamedTuple):
    """The ids of a prompt."""

    ids: list[int]
    learned: list[bool]
    """Per id: whether it belongs to an earlier answer that training learns."""


def without_middle(ids: list[int], most: int) -> list[int]:
    """The ids, without their middle if there are more than `most`; none where that is 0 or less."""
    most = max(most, 0)
    if len(ids) <= most:
        return ids
    head = most // 2
    return ids[:head] + ids[len(ids) - (most - head) :]
