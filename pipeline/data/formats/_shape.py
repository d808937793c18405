"""Mapping of a file's columns to a record: column names, templates, roles, label names, language and split.

`Shape` holds the settings that the sources files, url and hub share, and checks them. `Field` is one column of a file.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

from pipeline.config.recipe import Kind
from pipeline.data import judgements
from pipeline.data.formats._template import Template, is_template
from pipeline.data.label_cells import LabelForm
from pipeline.data.records import PROMPT, RESERVED, ROLES, TIME
from pipeline.errors import UserError

OPTIONAL = frozenset({"input"})  # a file without it: every input is empty
MESSAGES = "messages"  # documents and instructions: a list of messages in place of their columns
TOOLS = (
    "tools",
    "functions",
)  # definitions of tools beside `messages`; no task honours them, so such rows are rejected
EXTRA = ("language", "split")  # columns of every record that a mapping may read from the file
FURTHER = "extra"  # key of a mapping: further columns that records keep
ABSENT: Final = object()  # the row has no such field; null is a value
_SHOWN = 40  # characters of a column's name, and columns, that errors quote: without a header a name is content


class Field(NamedTuple):
    """A column of the schema, its name in the file, and whether the file must have it."""

    ours: str
    """Name in the record; in braces for a column of a template."""
    theirs: str
    required: bool
    sparse: bool = False
    """Whether a row may lack it although the file must have it."""


class BadRow(NamedTuple):
    """A rejected row: a short code of the reason, with the value found and the value expected."""

    reason: str
    detail: str


Row = tuple[int, "tuple[Any, ...] | BadRow"]
"""A row as a format reads it: line number, and values in the order of `Shape.fields` or the reason of rejection."""


@dataclass(frozen=True)
class Shape:
    """Record kind and column mapping of a source."""

    where: str
    """Its section of params.yaml in errors, such as download.sources.sms."""
    kind: Kind
    columns: dict[str, str]
    labels: dict[str, str]
    language: str
    split: str | None
    further: dict[str, str] = field(default_factory=dict)
    """Further columns that records keep: ours -> the file's."""
    label_form: LabelForm = "one"
    label_separator: str | None = None

    def __post_init__(self) -> None:
        messages = [MESSAGES] if self.kind in ("documents", "instructions") else []
        choices = judgements.CHOICE if self.kind in ("preferences", "ratings") else ()
        rater = [judgements.RATER] if self.kind == "ratings" else []
        known = tuple(dict.fromkeys((*self.content, *choices, *rater, *EXTRA, *messages, *ROLES)))
        if unknown := sorted(set(self.columns) - set(known)):
            raise ValueError(
                f"columns names {unknown}, which {self.kind} do not have; one of: {', '.join(known)}; records keep a "
                f"further column of the file if it is listed: {FURTHER}: [{unknown[0]}]"
            )
        if taken := sorted(RESERVED & set(self.further)):
            raise ValueError(
                f"columns.{FURTHER} names {', '.join(taken)}, which have a meaning of their own; expected other names: "
                f"{FURTHER}: {{our name: the file's}}"
            )
        for ours, template in self.templates.items():
            if ours in ("label", "choice", "thumb") or ours not in self.content:
                raise ValueError(f"columns.{ours} is {template.text!r}; a template is for texts, expected a column")
            _ = template.columns
        if MESSAGES in self.columns and set(self.columns) & set(self.content):
            raise ValueError(f"columns names messages, which replace {', '.join(self.content)}; keep one of them")
        self._require_labels()
        self._require_a_label_form()
        if self.split is not None and "split" in self.columns:
            raise ValueError("split pins every record and columns.split reads it from a column; keep one of them")
        if self.language != "auto" and "language" in self.columns:
            raise ValueError("language is given twice, in language and in columns.language; write language: auto")

    def _require_labels(self) -> None:
        """Raises ValueError where labels are given to records without, or judgements are none of ours."""
        meanings = judgements.meanings(self.kind, self.columns)
        if self.labels and self.kind != "labelled" and not meanings:
            raise ValueError(f"labels is for kind labelled, found kind {self.kind}; write labels: {{}}")
        if meanings and (unknown := sorted(set(self.labels.values()) - set(meanings))):
            raise ValueError(f"labels names {', '.join(unknown)}; expected the file's value: {' or '.join(meanings)}")

    def _require_a_label_form(self) -> None:
        """Raises ValueError where label_form, label_separator and labels contradict each other."""
        if self.label_form != "one" and self.kind != "labelled":
            raise ValueError(f"label_form {self.label_form} is for kind labelled, found kind {self.kind}; remove it")
        if self.label_separator is not None and (self.label_form != "several" or not self.label_separator.strip(" ")):
            raise ValueError(
                f"label_separator is {self.label_separator!r} and label_form {self.label_form}; expected a sign that "
                "is no space, with label_form several"
            )
        if self.labels and self.label_form == "number":
            raise ValueError("labels names labels, and label_form is number; write labels: {}")

    @classmethod
    def of(cls, settings: Any, where: str) -> "Shape":
        """The shape of a source's settings. Raises ValueError where they contradict each other."""
        columns = dict(settings.columns)
        further = columns.pop(FURTHER, {})
        if isinstance(further, str):
            raise ValueError(f"columns.{FURTHER} is {further!r}; expected a list of columns: [{further}]")
        if isinstance(further, list):
            if twice := sorted({name for name in further if further.count(name) > 1}):
                raise ValueError(f"columns.{FURTHER} names {', '.join(twice)} more than once")
            further = {name: name for name in further}
        if several := sorted(ours for ours, theirs in columns.items() if not isinstance(theirs, str)):
            raise ValueError(
                f"columns.{several[0]} is {columns[several[0]]!r}; expected one column of the file, or of several a "
                'template such as "{title}\\n\\n{body}"'
            )
        return cls(
            where, settings.kind, columns, settings.labels, settings.language, settings.split, further,
            getattr(settings, "label_form", "one"), getattr(settings, "label_separator", None),
        )  # fmt: skip

    @cached_property
    def templates(self) -> dict[str, Template]:
        """Our columns that are made of several of the file's."""
        return {ours: Template(theirs) for ours, theirs in self.columns.items() if is_template(theirs)}

    @property
    def added(self) -> tuple[str, ...]:
        """The columns beyond the kind's schema: roles and further columns."""
        prompt = (PROMPT,) if self.judges else ()
        return (*(ours for ours in ROLES if ours in self.columns), *prompt, *self.further)

    @cached_property
    def content(self) -> tuple[str, ...]:
        """Our content columns that the file has: those of the kind's records, or those of a judgement."""
        return judgements.content(self.kind, self.columns)

    @property
    def judges(self) -> bool:
        """Whether a row is a judgement of answers (pipeline/data/judgements.py)."""
        return bool(judgements.meanings(self.kind, self.columns))

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The columns to read: the kind's content in schema order, columns of templates, then the others mapped."""
        mapped = [Field(ours, self.columns[ours], True) for ours in EXTRA if ours in self.columns]
        mapped += [Field(ours, self.columns[ours], True, ours != TIME) for ours in ROLES if ours in self.columns]
        mapped += [Field(ours, theirs, True, True) for ours, theirs in self.further.items()]
        if MESSAGES in self.columns:
            return (Field(MESSAGES, self.columns[MESSAGES], True), *self._tools, *mapped)
        content = [
            Field(ours, self.columns.get(ours, ours), self._is_required(ours))
            for ours in self.content
            if ours not in self.templates
        ]
        if self.kind == "ratings":
            name = self.columns.get(judgements.RATER, judgements.RATER)
            content.append(Field(judgements.RATER, name, judgements.RATER in self.columns, True))
        parts = dict.fromkeys(name for template in self.templates.values() for name in template.columns)
        content += [Field(f"{{{name}}}", name, True, True) for name in parts]
        tools = self._tools if self.kind in ("instructions", "preferences") else ()
        return (*content, *tools, *mapped)

    @cached_property
    def templated(self) -> tuple[Field, ...]:
        """The columns of the record that are made by templates."""
        return tuple(Field(ours, template.text, True) for ours, template in self.templates.items())

    @property
    def _tools(self) -> tuple[Field, ...]:
        """Columns beside a conversation that change what it says; a row in which one holds something is rejected."""
        return tuple(Field(name, name, False) for name in TOOLS if name not in self.columns.values())

    def _is_required(self, ours: str) -> bool:
        """Whether the file must have a column: all but an `input` that is not mapped, and an `instruction` of
        preferences that is not mapped, whose question then stands in the two lists of messages.
        """
        if self.kind == "preferences" and ours == "instruction":
            answers = {"first", "second"} if self.judges else {"chosen", "rejected"}
            return ours in self.columns or not answers <= set(self.columns)
        return ours not in OPTIONAL or ours in self.columns

    def places(self, names: list[str], shown: str, hint: str = "") -> list[int | None]:
        """Index of each field among a file's columns; None for an optional one that is missing.

        Args:
            names: the file's column names.
            shown: the file's name in errors.
            hint: added to the error for a missing column.

        Raises:
            UserError: a required column is missing, or a name occurs twice.
        """
        twice = sorted({name for name in names if name and names.count(name) > 1})
        if twice:
            raise UserError(
                f"{shown}: columns {_short(twice)} occur more than once; expected each name once: rename them"
            )
        self.require({name for field in self.fields if (name := field.theirs) in names}, names, shown, hint)
        return [names.index(field.theirs) if field.theirs in names else None for field in self.fields]

    def require(self, there: set[str], names: list[str], shown: str, hint: str = "") -> None:
        """Raises UserError where a required column is not among those that are `there`; arguments: see `places`."""
        missing = [
            f"{field.theirs!r} (our {self._place(field)})"
            for field in self.fields
            if field.required and field.theirs not in there
        ]
        if missing:
            raise UserError(
                f"{shown}: no column {', '.join(missing)}; found: {_short(names)}{hint}; "
                f"map our columns to the file's in {self.where}.columns"
            )

    def _place(self, field: Field) -> str:
        """Our name of a column in errors; of a template's column the text that it goes into."""
        parts = [ours for ours, template in self.templates.items() if field.ours == f"{{{field.theirs}}}"
                 and field.theirs in template.columns]  # fmt: skip
        return parts[0] if parts else field.ours

    def pick(self, row: dict[str, Any]) -> "tuple[Any, ...] | BadRow":
        """The values of one object in the order of `fields`; BadRow where a required one is missing.

        A name that is no key of the object is a path into it: `review.text`, `answers.text.0`. An optional field may be
        missing in any object.
        """
        values = tuple(value_at(row, field.theirs) for field in self.fields)
        for wanted, value in zip(self.fields, values, strict=True):
            if value is ABSENT and wanted.required and not wanted.sparse and wanted.ours not in OPTIONAL:
                return BadRow("missing_field", f"no field {wanted.theirs!r}; found: {_short(list(row))}")
        return values


@dataclass(frozen=True)
class AllColumns(Shape):
    """A shape that takes every column: a row has its values in the file's order, or is one whole object."""

    where: str = ""
    kind: Kind = "documents"
    columns: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    language: str = "und"
    split: str | None = None
    names: list[str] = field(default_factory=list)
    """The columns of a table, once its first row is read; empty for objects."""

    def places(self, names: list[str], shown: str, hint: str = "") -> list[int | None]:  # noqa: ARG002 - as in Shape
        """Every index, once names that occur twice are refused."""
        if twice := sorted({name for name in names if name and names.count(name) > 1}):
            raise UserError(
                f"{shown}: columns {_short(twice)} occur more than once; expected each name once: rename them"
            )
        self.names[:] = names
        return list(range(len(names)))

    def require(self, there: set[str], names: list[str], shown: str, hint: str = "") -> None:
        """Requires no column."""

    def pick(self, row: dict[str, Any]) -> "tuple[Any, ...] | BadRow":
        """The object."""
        return (row,)


def value_at(row: dict[str, Any], name: str) -> Any:
    """The value of a key, or at a path of keys and list indices joined by dots; ABSENT where there is none."""
    if name in row:
        return row[name]
    value: Any = row
    for step in name.split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return ABSENT
    return value


def _short(names: list[str]) -> list[str]:
    return [name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..." for name in names[:_SHOWN]]
