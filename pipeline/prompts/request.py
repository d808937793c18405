"""A request: what a model is asked, whether by a training record, a measure, a client or a person in a chat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.data import conversations
from pipeline.data.conversations import NOTHING, Earlier
from pipeline.errors import UserError


@dataclass(frozen=True)
class Request:
    """A question with its input, after the earlier messages of a conversation."""

    question: str
    """The instruction, the last question of a conversation, or the text to classify or to continue."""
    input: str = ""
    """Text that the question is about; always text, whatever it looks like."""
    earlier: Earlier = NOTHING
    """System message and earlier turns."""
    answer: str | None = None
    """The answer to score, for a reward model; None: the request asks for one."""

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Request":
        """The question of a record of instructions or preferences."""
        return cls(record["instruction"], record["input"], conversations.earlier(record.get("history")))

    @classmethod
    def of_messages(cls, messages: Any) -> "Request":
        """The request of a list of messages that ends with the user's. Raises UserError for any other list."""
        asked = conversations.prompt(messages)
        if isinstance(asked, str):
            raise UserError(f"messages: {asked}")
        question, history = asked
        return cls(question, "", conversations.earlier(history))

    @property
    def text(self) -> str:
        """Question and input as one text, for tasks without a template."""
        return f"{self.question}\n{self.input}" if self.input else self.question
