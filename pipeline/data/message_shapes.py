"""Shapes in which data sets write conversations, as one list of {"role": ..., "content": ...} (OpenAI's shape).

Known shapes: OpenAI's `messages` (role, content); ShareGPT's `conversations` (from, value); TRL's `prompt` beside
`completion`, and `chosen` beside `rejected` with or without a `prompt`, each a text or a list of messages
(huggingface.co/docs/trl/dataset_formats); HH-RLHF's texts with "Human:" and "Assistant:" before the turns (Bai et al.
2022), where no prompt stands beside them; a list stored as JSON text, as in CSV. Roles and fields of a message that are
not known here stay as they are: pipeline/data/conversations.py refuses them with a reason.
"""

import json
import re
from typing import Any

from pipeline.data import conversations

ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant"}
"""Role in other shapes -> ours."""
_KEYS = (("role", "content"), ("from", "value"))


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages in a known shape, or one as JSON text."""
    listed = _listed(value)
    return isinstance(listed, list) and bool(listed) and all(_keys(message) is not None for message in listed)


def messages(value: Any) -> Any:
    """A list of messages in OpenAI's shape; a value of any other kind is returned as it is."""
    listed = _listed(value)
    return [_message(message) for message in listed] if isinstance(listed, list) else value


def transcript(text: str) -> list[Any] | None:
    """The messages of a text in HH-RLHF's layout; None for any other text."""
    if not text.lstrip().startswith("Human:"):
        return None
    parts = re.split(r"(?:^|\n\n)(Human|Assistant):", text.strip())
    roles = {"Human": "user", "Assistant": "assistant"}
    said = [
        {"role": roles[role], "content": content.strip()}
        for role, content in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return said if len(said) > 1 else None


def joined(prompt: Any, answer: Any) -> list[Any]:
    """The conversation of a prompt and its answer, each a text or a list of messages; None or "" is no prompt."""
    if prompt is None and isinstance(answer, str) and (said := transcript(answer)) is not None:
        return said
    before = [] if prompt in (None, "") else _as_messages(prompt, "user")
    return [*before, *_as_messages(answer, "assistant")]


def running_text(value: Any) -> str | None:
    """The texts of a list of messages, a line each; None for any other value, or a message without text."""
    listed = messages(value)
    if not isinstance(listed, list) or not listed:
        return None
    texts = [conversations.text_of(message) for message in listed]
    return None if None in texts else "\n".join(map(str, texts))


def _as_messages(value: Any, role: str) -> list[Any]:
    return [_message(message) for message in value] if isinstance(value, list) else [{"role": role, "content": value}]


def _listed(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _keys(message: Any) -> tuple[str, str] | None:
    if not isinstance(message, dict):
        return None
    return next((keys for keys in _KEYS if keys[0] in message and keys[1] in message), None)


def _message(message: Any) -> Any:
    """A message in OpenAI's shape, its other fields kept."""
    keys = _keys(message)
    if keys is None:
        return message
    role, content = message[keys[0]], message[keys[1]]
    others = {key: value for key, value in message.items() if key not in keys}
    return {"role": ROLES.get(role, role) if isinstance(role, str) else role, "content": content, **others}
