"""The text of a record's label column: one label, several labels as a JSON list, or a number.

    one       spam
    several   ["billing", "urgent"]      sorted, each once; [] for none
    number    3.5

Each form has one spelling, so equal labels give equal cells, ids and splits.
"""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

LabelForm = Literal["one", "several", "number"]
"""What a label column holds: one label of a text, several labels (multi-label), or a number (regression)."""


def several_cell(labels: Iterable[str]) -> str:
    """The cell of a set of labels."""
    return json.dumps(sorted(set(labels)), ensure_ascii=False)


def several_in(cell: str) -> list[str] | None:
    """The labels of a cell, sorted, each once; None where it is no JSON list of texts."""
    try:
        value = json.loads(cell) if cell.startswith("[") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        return None
    return sorted(set(value))


def number_cell(value: float) -> str:
    """The cell of a finite number: the shortest digits that give the same float64, a whole number without a point."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def number_in(cell: str) -> float | None:
    """The number of a cell; None where it is no finite number in decimal digits."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def distinct_labels(cells: Iterable[str]) -> list[str]:
    """The distinct labels of cells of several labels, sorted; cells of another form count as one label each."""
    return sorted({label for cell in set(cells) for label in labels_of(cell)})


def labels_of(cell: str) -> Sequence[str]:
    """The labels of a cell: several, or the one that the whole cell is."""
    several = several_in(cell)
    return (cell,) if several is None else several


def number_of(value: Any) -> float | None:
    """The finite number in a file's cell, which holds a number or its text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    return number_in(value.strip()) if isinstance(value, str) else None
