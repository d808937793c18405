"""Whether a table's first row names the columns: by its words in any language, compared with the rows below."""

import re
from collections import Counter
from typing import Any

from pipeline.studies.guess.names import NAMES, rank

_MOST_COLUMNS = 50
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*")
_NAME = re.compile(r"[^\W\d]\w*([ ._/-]\w+){0,3}")


def is_header(body: list[list[Any]]) -> bool:
    """Whether the first row is a header. A cell for or against it: see `_evidence`."""
    if not body:
        return False
    first = [str(cell).strip() for cell in body[0][:_MOST_COLUMNS]]
    if len(body) == 1 or all(map(_is_known, first)):
        return True
    if all(_NUMBER.fullmatch(cell) for cell in first):
        return False
    columns = [[str(row[k]).strip() for row in body[1:]] for k in range(len(first))]
    total = sum(_evidence(cell, column) for cell, column in zip(first, columns, strict=True))
    return total > 0 or (total == 0 and all(_NAME.fullmatch(cell) and len(cell) <= 30 for cell in first))


def has_known_name(row: list[Any]) -> bool:
    """Whether a cell is, as a whole, a usual name of a column."""
    return any(_is_known(str(cell)) for cell in row)


def _is_known(cell: str) -> bool:
    return len(cell) <= 30 and any((place := rank(cell, role)) is not None and place < 1000 for role in NAMES)


def _evidence(cell: str, column: list[str]) -> float:
    """Above 0 where a first cell is unlike the values below it and like a name, below 0 where it is one of them."""
    below = [value for value in column if value]
    if not below:
        return 0.5 if _NAME.fullmatch(cell) else 0.0
    counts = Counter(below)
    repeated = len(counts) <= max(0.5 * len(below), 1)
    if not cell:
        return 0.0
    if cell in counts:
        return -4.0 if repeated or counts[cell] > 1 else -2.0
    total = (
        3.0
        if _is_known(cell)
        else 0.5
        if any(rank(cell, role) is not None for role in NAMES) and " " not in cell
        else 0.0
    )
    numbers = sum(bool(_NUMBER.fullmatch(value)) for value in below) / len(below)
    if numbers >= 0.95:
        return total + (-3.0 if _NUMBER.fullmatch(cell) else 2.0)
    if repeated and len(below) >= 4:
        total += 1.0
    words = sorted(len(value.split()) for value in below)
    middle, own = words[len(words) // 2], len(cell.split())
    if middle >= 3 and own <= 2 and len(cell) <= 30:
        total += 1.5
    elif middle >= 3 and own >= 4:
        total -= 1.5
    if cell.endswith((".", "!", "?")):
        total -= 1.0
    return total
