"""Rows of tables that judge answers: the value of a choice or a thumb, and the record that the row gives."""

from typing import Any

from pipeline.data import judgements
from pipeline.data.formats._shape import BadRow, Field, Shape


def record(row: dict[str, Any], shape: Shape) -> dict[str, Any] | BadRow | None:
    """The record of a row with a judgement; None for a tie of two answers where records are preferences."""
    if "choice" in row:
        if row["choice"] == judgements.TIE and shape.kind == "preferences":
            return None
        if row["choice"] != judgements.TIE and row["first"] == row["second"]:
            return BadRow("equal_pair", "both answers are the same text; expected two answers to choose from")
    return judgements.judged(row, shape.kind, shape.language)


def judgement(field: Field, value: Any, shape: Shape) -> str | BadRow:
    """The choice or the thumb of a row as ours."""
    if field.ours == "choice":
        judged = judgements.choice_of(value, shape.labels, shape.columns)
    else:
        judged = judgements.thumb_of(value, shape.labels)
    if judged is not None:
        return judged
    known = list(shape.labels) or judgements.meanings(shape.kind, shape.columns)
    return BadRow(
        "unknown_judgement",
        f"{field.theirs} is {value!r:.40}; one of: {', '.join(known)}, or name it in labels: {{the file's: ours}}",
    )
