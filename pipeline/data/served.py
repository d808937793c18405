"""Requests as a server keeps them: the text that a person wrote, and labels that arrive later."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.data import label_cells


def asked_text(asked: str | Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """The text that is observed, and the number of the user's messages: of a conversation the user's last message."""
    if isinstance(asked, str):
        return asked, 1
    said = [_content(message) for message in asked if message.get("role") == "user"]
    return said[-1] if said else "", len(said)


def label_text(label: Any) -> str | None:
    """A label as the label column of records has it (pipeline/data/label_cells.py): several labels as a JSON list."""
    if label is None:
        return None
    several = label if isinstance(label, list | tuple) else label_cells.several_in(str(label))
    return str(label) if several is None else label_cells.several_cell(map(str, several))


def labels_of(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Request -> label of the journal's label entries; a later one supersedes."""
    named = ((entry, label_text(entry.get("label"))) for entry in entries if entry.get("kind") == "label")
    return {str(entry["request"]): label for entry, label in named if label is not None}


def _content(message: Mapping[str, Any]) -> str:
    """The text of a message, whose content is text or OpenAI's list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, Mapping))
