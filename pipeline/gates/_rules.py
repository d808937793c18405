"""Profile tables and expectation tables of the gates, free of the library that validates them.

- `Frame`: a small profile table with a row per measured thing (a record kind, a language, a metric).
- `Tally`: a number of offending records and the first of them, the value of one cell of a frame.
- `Row`: a line of a gate's table of expectations; `suite` reads the bounds from the gate's settings and gives an
  `Expectation` per line, which pipeline.gates._expectations validates with Great Expectations.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from pipeline.config.recipe import Kind
from pipeline.gates._wording import PLAIN, Value, Wording, load, printable

# Enough to name every planted or leaked record of a small test set, little enough for a page.
MOST_EXAMPLES = 50

Severity = Literal["critical", "warning"]
"""critical: a failure blocks the graph; warning: it is only shown."""


@dataclass(frozen=True)
class Example:
    """One offending record: id, origin and a short masked excerpt."""

    id: str
    origin: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """Plain form for the verdict."""
        return {"id": printable(self.id), "origin": printable(self.origin), "text": self.text}


@dataclass
class Tally:
    """Number of offending records, with the first MOST_EXAMPLES of them in file order."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Counts one more offending record."""
        self.add_rows([0], lambda _: example)

    def add_rows(self, rows: Sequence[int], example: Callable[[int], Example], most: int = MOST_EXAMPLES) -> None:
        """Counts offending rows; `example` is called for the first `most` only, since making one costs far more."""
        self.examples += [example(row) for row in rows[: max(most - len(self.examples), 0)]]
        self.count += len(rows)


class Frame:
    """A profile table: `labels` are the columns that name a row, `columns` the measured ones."""

    def __init__(
        self,
        labels: tuple[str, ...],
        columns: tuple[str, ...],
        nullable: bool = False,
        counts: Mapping[str, str] | None = None,
        kind: Kind | None = None,
    ) -> None:
        """Makes a table without rows.

        Args:
            labels: names of the label columns.
            columns: names of the measured columns.
            nullable: whether a measured value may be missing.
            counts: column of a share -> column that counts the same records.
            kind: record kind of all rows, where no label column `kind` names it.
        """
        self.labels, self.columns, self._nullable = labels, columns, nullable
        self._counts, self._kind = dict(counts or {}), kind
        self.rows: list[dict[str, Value]] = []
        self.examples: dict[tuple[int, str], list[Example]] = {}

    def add(self, values: Mapping[str, Value | Tally]) -> None:
        """Appends a row; a Tally becomes its count and keeps its examples.

        Most expectations ignore a missing number, so only a nullable frame may hold one.
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

    def kind_of(self, row: int) -> str | None:
        """The record kind that a row is about; None for rows about no kind, such as a model's metrics."""
        return printable(str(self.rows[row]["kind"])) if "kind" in self.labels else self._kind

    def label_of(self, row: int) -> str:
        """The label columns of a row in one line; `all` where there are none."""
        return printable(" ".join(str(self.rows[row][name]) for name in self.labels)) or "all"

    def count_column(self, column: str) -> str:
        """The column that counts the records behind a value: of a share another one, else the column itself."""
        return self._counts.get(column, column)

    def records(self, column: str, rows: Iterable[int]) -> int | None:
        """Number of records behind some rows of a column; None where the column counts no records."""
        rows, counted = list(rows), self.count_column(column)
        if counted == column and not any((row, column) in self.examples for row in rows):
            return None
        return sum(int(self.rows[row][counted] or 0) for row in rows)


@dataclass(frozen=True)
class Expectation:
    """One Great Expectations expectation on one column of one frame, with the params key that changes it."""

    frame: str
    expectation: str
    """Name in Great Expectations, in snake case."""
    column: str
    arguments: Mapping[str, Any]
    """Keyword arguments, the column's included."""
    params_key: str
    """The params.yaml key that changes the bound, maybe with a label column such as `{kind}`; else the part to fix."""
    statement: str
    """The condition in words."""
    severity: Severity = "critical"
    finding: str = ""
    """The measured values in words, a template of the frame's columns; empty: column and value."""

    def measured(self, frame: "Frame", row: int, wording: Wording | None = None) -> dict[str, str]:
        """One row of the frame in words: `finding`, `bound` and the `params_key` that changes the bound.

        `wording`: of the language; None: English.
        """
        wording = wording or load()
        values = {name: wording.shown(value) for name, value in frame.rows[row].items()}
        finding = wording.template(self.finding or PLAIN)
        if not self.finding:
            values |= {"column": self.column.replace("_", " "), "value": values[self.column]}
        names = {name: load().shown(frame.rows[row][name]) for name in frame.labels}  # keys of params.yaml
        names["kind"] = frame.kind_of(row) or "<kind>"
        return {
            "finding": finding.format_map(values),
            "bound": wording.bound(self.arguments, values),
            "params_key": _filled(wording.sentence(self.params_key), names),
        }


class Condition(NamedTuple):
    """A requirement on a column: the expectation, its arguments and the key that changes them."""

    expectation: str
    arguments: Mapping[str, Any]
    """Without the column; a `_Setting` is replaced by its value."""
    params_key: str | None = None
    """None: the key of the setting."""
    severity: Severity = "critical"


class _Setting(NamedTuple):
    """A bound that the gate's settings hold, by its dotted name."""

    name: str


Row = tuple[str, str, Condition, str] | tuple[str, str, Condition, str, str]
"""Frame, column, condition, condition in words, measured values in words (`{rows} records`: the column rows)."""


def suite(section: str, settings: Any, rows: Iterable[Row]) -> list[Expectation]:
    """The expectations of a table, their bounds read from `settings`.

    Args:
        section: path of the settings in params.yaml, such as gates.raw.
        settings: the gate's settings.
        rows: the table.

    Raises:
        AttributeError: a condition names a setting that the gate does not have.
    """
    expectations = []
    for frame, column, condition, statement, *finding in rows:
        key = condition.params_key
        arguments: dict[str, Any] = {}
        for name, value in condition.arguments.items():
            if isinstance(value, _Setting):
                key = key or f"{section}.{value.name}"
                value = attrgetter(value.name)(settings)
            arguments[name] = value
        arguments["column_A" if "column_B" in arguments else "column"] = column
        assert key is not None, f"{frame}.{column}: no params key"
        expectations.append(
            Expectation(frame, condition.expectation, column, arguments, key, statement, condition.severity, *finding)
        )
    return expectations


def at_most(bound: str | float, params_key: str | None = None) -> Condition:
    """Every value is at most a number, or the setting of that name."""
    return Condition(_BETWEEN, {"max_value": _bound(bound)}, params_key)


def at_least(bound: str | float, params_key: str | None = None) -> Condition:
    """Every value is at least a number, or the setting of that name."""
    return Condition(_BETWEEN, {"min_value": _bound(bound)}, params_key)


def within(low: str | float, high: str | float, params_key: str | None = None) -> Condition:
    """Every value is from `low` to `high`, both inclusive."""
    return Condition(_BETWEEN, {"min_value": _bound(low), "max_value": _bound(high)}, params_key)


def zero(params_key: str) -> Condition:
    """Every value is at most 0: nothing was counted."""
    return at_most(0, params_key)


def equals(other: str, params_key: str) -> Condition:
    """In every row the value equals the column `other`."""
    return Condition("expect_column_pair_values_to_be_equal", {"column_B": other}, params_key)


def reaches(other: str, params_key: str) -> Condition:
    """In every row the value is at least the column `other`."""
    arguments = {"column_B": other, "or_equal": True}
    return Condition("expect_column_pair_values_a_to_be_greater_than_b", arguments, params_key)


def measured(params_key: str) -> Condition:
    """No value is missing."""
    return Condition("expect_column_values_to_not_be_null", {}, params_key)


def one_of(values: list[str], params_key: str) -> Condition:
    """Every value is among `values`."""
    return Condition("expect_column_values_to_be_in_set", {"value_set": values}, params_key)


def warning(condition: Condition) -> Condition:
    """The condition as a warning: a failure does not block."""
    return condition._replace(severity="warning")


def _filled(params_key: str, names: Mapping[str, str]) -> str:
    """The key with label columns such as `{kind}` replaced; no format string, since a model's name may have braces."""
    for name, value in names.items():
        params_key = params_key.replace(f"{{{name}}}", value)
    return params_key


_BETWEEN = "expect_column_values_to_be_between"


def _bound(bound: str | float) -> Any:
    return _Setting(bound) if isinstance(bound, str) else bound
