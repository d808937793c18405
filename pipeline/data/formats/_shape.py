"""How a file's columns become a record: which of theirs is which of ours, what a label means, which language
it is.

`Shape` is what the settings of files, url and hub have in common, checked once. `Field` is one column to look
for.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from pipeline.config.recipe import Kind
from pipeline.data.records import CONTENT
from pipeline.errors import UserError

OPTIONAL = frozenset({"input"})  # a file without it means: no input
MESSAGES = "messages"  # kind instructions: a list of messages in place of its columns
EXTRA = ("language", "split")  # may also come from a column, when mapped
ABSENT: Final = object()  # the row has no such field (null is a value, and another thing)


class Field(NamedTuple):
    """One column of ours, the name it has in the file, and whether a file without it is refused."""

    ours: str
    theirs: str
    required: bool


class Bad(NamedTuple):
    """A row that cannot be a record: a short code, and what was found and expected."""

    reason: str
    detail: str


# A row as a format reads it: its line, then its values in the order of `Shape.fields`, or why there are none.
Row = tuple[int, "tuple[Any, ...] | Bad"]


@dataclass(frozen=True)
class Shape:
    """What to make of a row. `where` is how errors call the params section (`download.sources.sms`)."""

    where: str
    kind: Kind
    columns: dict[str, str]
    labels: dict[str, str]
    language: str
    split: str | None

    def __post_init__(self) -> None:
        known = (*CONTENT[self.kind], *EXTRA, *([MESSAGES] if self.kind == "instructions" else []))
        if odd := sorted(set(self.columns) - set(known)):
            raise ValueError(f"columns names {odd}, which {self.kind} do not have; one of: {', '.join(known)}")
        if MESSAGES in self.columns and set(self.columns) & set(CONTENT[self.kind]):
            raise ValueError(
                f"columns names messages, which stand for {', '.join(CONTENT[self.kind])}; keep one of them"
            )
        if self.labels and self.kind != "labelled":
            raise ValueError(f"labels is for kind labelled, found kind {self.kind}; write labels: {{}}")
        if self.split is not None and "split" in self.columns:
            raise ValueError("split pins every record and columns.split reads it from a column; keep one of them")
        if self.language != "auto" and "language" in self.columns:
            raise ValueError("language is given twice, in language and in columns.language; write language: auto")

    @classmethod
    def of(cls, settings: Any, where: str) -> "Shape":
        """The shape that a source's settings describe. Raises ValueError where they contradict themselves."""
        return cls(where, settings.kind, settings.columns, settings.labels, settings.language, settings.split)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The columns to look for: the kind's content in schema order, then language and split where
        mapped."""
        if MESSAGES in self.columns:
            extra = [Field(ours, self.columns[ours], True) for ours in EXTRA if ours in self.columns]
            return (Field(MESSAGES, self.columns[MESSAGES], True), *extra)
        content = [
            Field(ours, self.columns.get(ours, ours), ours not in OPTIONAL or ours in self.columns)
            for ours in CONTENT[self.kind]
        ]
        return (*content, *(Field(ours, self.columns[ours], True) for ours in EXTRA if ours in self.columns))

    def places(self, names: list[str], shown: str, hint: str = "") -> list[int | None]:
        """Where each field stands among a file's columns; null for an optional one that is not there.

        Raises:
            UserError: a needed column is missing, or a name stands twice.
        """
        twice = sorted({name for name in names if name and names.count(name) > 1})
        if twice:
            raise UserError(f"{shown}: columns {twice} stand more than once; expected each name once: rename them")
        missing = [
            f"{field.theirs!r} (our {field.ours})"
            for field in self.fields
            if field.required and field.theirs not in names
        ]
        if missing:
            raise UserError(
                f"{shown}: no column {', '.join(missing)}; found: {names[:40]}{hint}; "
                f"say which column is which in {self.where}.columns"
            )
        return [names.index(field.theirs) if field.theirs in names else None for field in self.fields]

    def pick(self, row: dict[str, Any]) -> "tuple[Any, ...] | Bad":
        """The values of one object in the order of `fields`; Bad if a needed one is not there."""
        for field in self.fields:
            if field.required and field.theirs not in row:
                return Bad("missing_field", f"no field {field.theirs!r}; found: {list(row)[:20]}")
        return tuple(row.get(field.theirs, ABSENT) for field in self.fields)
