"""Markdown tables of the model card."""

from collections.abc import Iterable
from typing import Any


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; bars and line breaks in cells cannot break it."""
    names = list(header)

    def line(cells: Iterable[Any]) -> str:
        texts = ("" if cell is None else str(cell) for cell in cells)
        return "| " + " | ".join(" ".join(text.replace("|", "\\|").split()) for text in texts) + " |"

    return "\n".join([line(names), line("---" for _ in names), *map(line, rows)])
