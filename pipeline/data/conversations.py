"""Multi-turn conversations as instruction records.

A list of messages ({"role": ..., "content": ...}, as chat services write them) becomes one record: `instruction` is the
last question, `output` its answer, and `history` holds the earlier messages as JSON. So gates, deduplication and splits
read every word of it as ordinary text, and an `input` is always text, whatever it looks like.

A message with `weight: 0` is context that training does not learn (OpenAI's fine-tuning format). Every other field of a
message that holds something is refused with a reason: nothing that a data set says is dropped silently.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Role of a message -> role in a record (OpenAI renamed `system` to `developer`)."""
_KNOWN = frozenset({"role", "content", "weight"})


class Message(NamedTuple):
    """One message of a conversation."""

    role: str
    """system, user or assistant."""
    text: str
    learned: bool = True
    """Whether training has a loss on it; false for an assistant's message with `weight: 0`."""


class Turn(NamedTuple):
    """A question with its answer."""

    question: str
    answer: str
    learned: bool = True
    """Whether training learns the answer."""


class Earlier(NamedTuple):
    """The messages before the last question."""

    system: str
    """System message; empty where there is none."""
    turns: tuple[Turn, ...]
    """Oldest first."""


NOTHING = Earlier("", ())
"""A conversation without earlier messages."""


class Conversation(NamedTuple):
    """The columns of a record."""

    instruction: str
    history: str
    """JSON of the earlier messages; empty for none."""
    output: str


def record(value: Any) -> Conversation | str:
    """The columns of a list of messages; for an invalid list, the fault in words.

    Messages after the last learned answer are left out: no answer follows them.
    """
    messages = parsed(value)
    if isinstance(messages, str):
        return messages
    if not messages or messages[-1].role != "assistant":
        return "the last message is not the assistant's; expected an answer to learn from"
    while messages and not (messages[-1].role == "assistant" and messages[-1].learned):
        messages.pop()
    if not messages:
        return "every assistant message has weight 0; expected an answer to learn from"
    question, answer, before = messages[-2], messages[-1], messages[:-2]
    return Conversation(question.text, dumped(before), answer.text)


def prompt(value: Any) -> tuple[str, str] | str:
    """Last question and history of a list of messages that ends with a question; for an invalid list, the fault."""
    messages = parsed(value)
    if isinstance(messages, str):
        return messages
    if not messages or messages[-1].role != "user":
        return "the last message is not the user's; expected a question to answer"
    return messages[-1].text, dumped(messages[:-1])


def earlier(history: str | None) -> Earlier:
    """The conversation in a record's `history`.

    Raises:
        ValueError: not what `record` or `dumped` wrote.
    """
    if not history:
        return NOTHING
    messages = parsed(json.loads(history))
    if isinstance(messages, str) or (messages and messages[-1].role == "user"):
        raise ValueError(f"{history[:80]!r} is no history of a conversation")
    system = messages[0].text if messages and messages[0].role == "system" else ""
    talk = [message for message in messages if message.role != "system"]
    pairs = zip(talk[::2], talk[1::2], strict=True)
    return Earlier(system, tuple(Turn(asked.text, said.text, said.learned) for asked, said in pairs))


def texts(history: str | None) -> list[str]:
    """The texts of a record's `history`, oldest first."""
    conversation = earlier(history)
    said = (conversation.system, *(text for turn in conversation.turns for text in turn[:2]))
    return [text for text in said if text]


def text_of(message: Any) -> str | None:
    """The text of one message; None where it is none, or says more than this project reads."""
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        return None
    checked = _message(message)
    return None if isinstance(checked, str) else checked.text


def dumped(messages: Sequence[Message]) -> str:
    """The `history` of these messages; empty for none."""
    if not messages:
        return ""
    return json.dumps(
        [
            {"role": message.role, "content": message.text} | ({} if message.learned else {"weight": 0})
            for message in messages
        ],
        ensure_ascii=False,
    )


def of_turns(turns: Sequence[Turn], system: str = "") -> str:
    """The `history` of a system message and turns; empty for none."""
    messages = [Message("system", system)] if system else []
    for turn in turns:
        messages += [Message("user", turn.question), Message("assistant", turn.answer, turn.learned)]
    return dumped(messages)


def parsed(value: Any) -> list[Message] | str:
    """The messages of a list in their order; for an invalid list, the fault in words."""
    if not isinstance(value, list):
        return f"found {type(value).__name__}; expected a list of messages"
    messages = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return f"message {number} is {message!r:.40}; expected role and content"
        checked = _message(message)
        if isinstance(checked, str):
            return f"message {number} {checked}"
        messages.append(checked)
    return _order(messages) or messages


def _message(message: dict[str, Any]) -> Message | str:
    if foreign := [key for key, value in message.items() if key not in _KNOWN and value not in (None, "", [], {})]:
        return (
            f"has {foreign[0]}, which this project can neither teach nor leave out without changing what the "
            "conversation says; remove that field, or the record"
        )
    role, text = message["role"], _text(message["content"])
    if not isinstance(role, str) or role not in ROLES or text is None or not text.strip():
        return f"has role {role!r:.20} and content {message['content']!r:.20}; expected a known role and text"
    weight = message.get("weight")
    if weight not in (None, 0, 1):
        return f"has weight {weight!r:.20}; expected 0 (not learned) or 1"
    return Message(ROLES[role], text, not (weight == 0 and weight is not None and ROLES[role] == "assistant"))


def _text(content: Any) -> str | None:
    """The text of a content: a string, or a list of text parts ({"type": "text", "text": ...}); None otherwise."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    return None if not all(isinstance(part, str) for part in parts) else "".join(str(part) for part in parts)


def _order(messages: list[Message]) -> str:
    """The fault in the order of roles, in words; empty where there is none."""
    start = 1 if messages and messages[0].role == "system" else 0
    for number, message in enumerate(messages[start:]):
        expected = ("user", "assistant")[number % 2]
        if message.role != expected:
            return f"message {start + number + 1} is the {message.role}'s; expected the {expected}'s"
    return ""
