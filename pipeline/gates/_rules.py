"""What a gate measures and what it demands, without naming the tool that judges: frames, tallies and rules.

A `Frame` is a small profile table, a row per thing measured (a record kind, a language, a metric). A `Tally`
is a count in such a row with the first records behind it. A `Rule` is one Great Expectations expectation on
one column of one frame, with the params key that changes it; only pipeline.gates._expectations turns it into
the real one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# Enough to name every planted or leaked record of a small test set, little enough for a page.
MOST_EXAMPLES = 50

Value = str | int | float | None


@dataclass(frozen=True)
class Example:
    """One offending record: its id, where it came from, and a short masked excerpt."""

    id: str
    origin: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """Plain form for the verdict."""
        return {"id": self.id, "origin": self.origin, "text": self.text}


@dataclass
class Tally:
    """How many records offend, and the first MOST_EXAMPLES of them in file order."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """One more offending record."""
        self.count += 1
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(example)


class Frame:
    """A profile table; `labels` are the columns that name a row, the others are what was measured."""

    def __init__(self, labels: tuple[str, ...], columns: tuple[str, ...], nullable: bool = False) -> None:
        self.labels, self.columns, self._nullable = labels, columns, nullable
        self.rows: list[dict[str, Value]] = []
        self.examples: dict[tuple[int, str], list[Example]] = {}

    def add(self, values: Mapping[str, Value | Tally]) -> None:
        """Appends a row; a Tally becomes its count and keeps its examples.

        A missing number would pass most expectations unseen, so only a nullable frame may hold one.
        """
        assert set(values) == {*self.labels, *self.columns}, f"{sorted(values)} are not the columns {self.columns}"
        row: dict[str, Value] = {}
        for name in (*self.labels, *self.columns):
            value = values[name]
            if isinstance(value, Tally):
                if value.examples:
                    self.examples[len(self.rows), name] = list(value.examples)
                value = value.count
            absent = value is None or (isinstance(value, float) and not math.isfinite(value))
            assert self._nullable or not absent, f"{name} of {values} is not a number"
            row[name] = None if absent else value
        self.rows.append(row)


@dataclass(frozen=True)
class Rule:
    """One expectation: Great Expectations' name, the column, its other arguments, and how to change it."""

    frame: str
    expectation: str
    column: str
    arguments: Mapping[str, Any]
    setting: str
    """The params.yaml key that moves the bound; for what has no bound, what to mend instead."""
    says: str
    """What holds when the expectation does, as a sentence."""
    severity: Literal["critical", "warning"] = "critical"
    """critical blocks, warning is only shown."""
    count: str | None = None
    """Column that counts the offending records, with its examples; null: `column` itself."""


def between(
    frame: str,
    column: str,
    setting: str,
    says: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    severity: Literal["critical", "warning"] = "critical",
    count: str | None = None,
) -> Rule:
    """Every value of the column lies within the bounds, both inclusive."""
    bounds = {"min_value": at_least, "max_value": at_most}
    arguments = {"column": column} | {key: value for key, value in bounds.items() if value is not None}
    return Rule(frame, "expect_column_values_to_be_between", column, arguments, setting, says, severity, count)


def equal(frame: str, column: str, other: str, setting: str, says: str, count: str | None = None) -> Rule:
    """In every row the two columns hold the same value."""
    arguments = {"column_A": column, "column_B": other}
    return Rule(frame, "expect_column_pair_values_to_be_equal", column, arguments, setting, says, count=count)


def reaches(frame: str, column: str, other: str, setting: str, says: str) -> Rule:
    """In every row `column` is at least `other`."""
    arguments = {"column_A": column, "column_B": other, "or_equal": True}
    return Rule(frame, "expect_column_pair_values_a_to_be_greater_than_b", column, arguments, setting, says)


def present(frame: str, column: str, setting: str, says: str) -> Rule:
    """No value of the column is missing."""
    return Rule(frame, "expect_column_values_to_not_be_null", column, {"column": column}, setting, says)


def one_of(frame: str, column: str, values: list[str], setting: str, says: str) -> Rule:
    """Every value of the column is among `values`."""
    arguments = {"column": column, "value_set": values}
    return Rule(frame, "expect_column_values_to_be_in_set", column, arguments, setting, says)
