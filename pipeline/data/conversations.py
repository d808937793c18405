"""Multi-turn conversations as instruction records.

A list of messages ({"role": ..., "content": ...}, as chat services write them) becomes one record: `instruction` is the
last question, `output` its answer, and `input` holds the earlier messages as JSON. So gates, deduplication and splits
read every word of it as ordinary text.
"""

import json
from typing import Any, NamedTuple

Message = tuple[str, str]
"""Role (system, user, assistant) and text."""


class Earlier(NamedTuple):
    """The messages before the last question."""

    system: str
    """System message; empty where there is none."""
    turns: tuple[tuple[str, str], ...]
    """(question, answer) pairs, oldest first."""


def record(value: Any) -> tuple[str, str, str] | str:
    """instruction, input and output of a list of messages; for an invalid list, the fault in words."""
    messages = _messages(value)
    if isinstance(messages, str):
        return messages
    if wrong := _order(messages):
        return wrong
    if not messages or messages[-1][0] != "assistant":
        return "the last message is not the assistant's; expected an answer to learn from"
    (_, question), (_, answer), before = messages[-2], messages[-1], messages[:-2]
    return question, _json(before) if before else "", answer


def earlier(given: str) -> Earlier | None:
    """The conversation in an `input`; None where it is plain text."""
    if not given.startswith('[{"role"'):
        return None
    try:
        messages = _messages(json.loads(given))
    except (ValueError, RecursionError):
        return None
    if isinstance(messages, str) or _order(messages) or (messages and messages[-1][0] == "user"):
        return None
    system = messages[0][1] if messages and messages[0][0] == "system" else ""
    texts = [text for role, text in messages if role != "system"]
    return Earlier(system, tuple(zip(texts[::2], texts[1::2], strict=True)))


def said(given: str) -> str:
    """The text of an `input`: a conversation's messages, a line each, or the plain text."""
    if (conversation := earlier(given)) is None:
        return given
    texts = (conversation.system, *(text for turn in conversation.turns for text in turn))
    return "\n".join(text for text in texts if text)


def written(turns: list[tuple[str, str]]) -> str:
    """The `input` of a conversation after these (question, answer) pairs; empty for none."""
    messages = [(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    return _json(messages) if messages else ""


def _json(messages: list[Message]) -> str:
    return json.dumps([{"role": role, "content": text} for role, text in messages], ensure_ascii=False)


def _messages(value: Any) -> list[Message] | str:
    if not isinstance(value, list):
        return f"found {type(value).__name__}; expected a list of messages"
    messages = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return f"message {number} is {message!r:.40}; expected role and content"
        role, text = message["role"], message["content"]
        if role not in ("system", "user", "assistant") or not isinstance(text, str) or not text.strip():
            return f"message {number} has role {role!r:.20} and content {text!r:.20}; expected a known role and text"
        messages.append((role, text))
    return messages


def _order(messages: list[Message]) -> str:
    """The fault in the order of roles, in words; empty where there is none."""
    start = 1 if messages and messages[0][0] == "system" else 0
    for number, (role, _) in enumerate(messages[start:]):
        expected = ("user", "assistant")[number % 2]
        if role != expected:
            return f"message {start + number + 1} is the {role}'s; expected the {expected}'s"
    return ""
