"""Shared parts of the choice of columns: statistics, the user's settings, questions on the terminal, names by role."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from pipeline.config.recipe import Kind
from pipeline.errors import UserError
from pipeline.studies.guess.columns import Column, Columns
from pipeline.studies.guess.names import plain, rank

Ask = Callable[[str, list[str]], str]
"""(question, choices) -> the choice: on a terminal."""
SET = "set TEXT=column, LABEL=column or KIND=kind (make try), or --text, --label, --kind (tohum try)"
_UNNAMED = 10_000


@dataclass(frozen=True)
class Wishes:
    """Settings of a guess that the user makes."""

    text: str | None = None
    label: str | None = None
    """Column of the label; of the answer with kind instructions."""
    kind: Kind | None = None
    ask: Ask | None = None
    """None: an ambiguity is an error."""


@dataclass(frozen=True)
class Roles:
    """Kind and columns: ours -> the file's."""

    kind: Kind
    columns: dict[str, str]
    sentences: tuple[str, ...] = field(default=())
    labels: dict[str, str] = field(default_factory=dict)
    """Of judgements: the file's value -> ours, where it is not understood as it is."""


class Picker:
    """The columns of one file and the user's settings."""

    def __init__(self, columns: Columns, wishes: Wishes, shown: str) -> None:
        """Takes the statistics of the columns; `shown`: the file's name in errors and questions."""
        self.columns, self.wishes, self.shown = columns, wishes, shown
        self.all = columns.by_name
        self.rows = columns.looked

    def refuse(self, fault: str) -> NoReturn:
        """Raises UserError with the columns and the options to set."""
        names = ", ".join(name[:40] for name in list(self.all)[:20]) or "none"
        raise UserError(f"{self.shown}: {fault}; columns found: {names}; {SET}")

    def ask(self, question: str, choices: list[str]) -> str:
        """The user's choice on a terminal. Raises UserError where there is none."""
        if self.wishes.ask is not None:
            return self.wishes.ask(f"{self.shown}: {question}", choices)
        self.refuse(f"{question}? {', '.join(repr(name[:40]) for name in choices[:12])} fit equally well")

    def wished(self, name: str | None) -> Column | None:
        """The column that the user names, letter case ignored. Raises UserError where there is none."""
        if name is None:
            return None
        exact = self.all.get(name) or self.all.get(f"{name}.0")
        near = [column for key, column in self.all.items() if plain(key) == plain(name)]
        if exact is None and len(near) != 1:
            self.refuse(f"no column {name!r}")
        return exact or near[0]

    def texts(self) -> list[Column]:
        """The columns that hold texts to learn from."""
        return [column for column in self.all.values() if column.is_text(self.rows)]

    def best(
        self, role: str, fits: Callable[[Column], bool], but: set[str] | None = None, most: int = _UNNAMED
    ) -> Column | None:
        """The column whose name fits a role best."""
        ranked = [
            (place, number, column)
            for number, column in enumerate(self.all.values())
            if column.name not in (but or set())
            and (place := is_named(column, role)) is not None
            and place < most
            and fits(column)
        ]
        return min(ranked)[2] if ranked else None


def is_named(column: Column, role: str) -> int | None:
    """How well the last part of a path fits a role (see `names.rank`); where it does not, the parts before it."""
    parts = [part for part in column.name.split(".") if not part.isdecimal()]
    places = [rank(part, role) for part in parts[::-1]]
    if places and places[0] is not None:
        return places[0]
    others = [place for place in places[1:] if place is not None]
    return 100 + min(others) if others else None


def is_meta(column: Column) -> bool:
    """Whether a name is that of data about the record: an id, a split, a language, an author, a date."""
    place = rank(column.name.rpartition(".")[2], "meta")
    return place is not None and rank(column.name.rpartition(".")[2], "text") is None


def says(column: Column) -> bool:
    """Whether a column holds texts or lists of messages, short answers included."""
    if column.is_conversation:
        return True
    wordy = column.texts >= 0.9 * column.seen and column.letters + column.numbers >= 0.5 * column.texts
    return column.seen > 0 and wordy and not (column.name.endswith(".0") and "." not in column.name[:-2])
