"""Kind of the records and the columns of each role, by the columns' names and content, or by the user's word."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pipeline.config.recipe import Kind
from pipeline.errors import UserError
from pipeline.studies.guess.columns import Column, Columns
from pipeline.studies.guess.names import is_code_of, is_language, plain, rank

Ask = Callable[[str, list[str]], str]
"""(question, choices) -> the choice: on a terminal."""
SET = "set TEXT=column, LABEL=column or KIND=kind (make try), or --text, --label, --kind (tohum try)"
_UNNAMED = 10_000
_PAIRS = (
    ("instruction", "output"),
    ("long", "summary"),
    ("input", "output"),
    ("source", "target"),
    ("input", "target"),
    ("long", "output"),
    ("long", "target"),
)


@dataclass(frozen=True)
class Wishes:
    """What the user says about a file."""

    text: str | None = None
    label: str | None = None
    """Column of the label; of the answer with kind instructions."""
    kind: Kind | None = None
    ask: Ask | None = None
    """None: what cannot be told is an error."""


@dataclass(frozen=True)
class Roles:
    """Kind and columns: ours -> the file's."""

    kind: Kind
    columns: dict[str, str]
    sentences: tuple[str, ...] = field(default=())


class Chooser:
    """Choice of kind and columns for one file."""

    def __init__(self, columns: Columns, wishes: Wishes, shown: str) -> None:
        self.columns, self.wishes, self.shown = columns, wishes, shown
        self.all = columns.by_name
        self.rows = columns.looked

    def roles(self) -> Roles:
        """The kind and its columns.

        Raises:
            UserError: a column that the user names is not there, nothing looks like text, or several columns fit a
                role equally well and there is no terminal to ask at.
        """
        kind = self.wishes.kind
        tries: dict[Kind, tuple[Callable[[], Roles | None], ...]] = {
            "preferences": (self._preferences,),
            "instructions": (self._messages, self._instructions, self._written_messages, self._named_pair),
            "labelled": (self._labelled,),
            "documents": (self._documents,),
        }
        order: tuple[Kind, ...] = (kind,) if kind else ("preferences", "instructions", "labelled", "documents")
        if kind is None and (self.wishes.label is not None):
            order = ("labelled",)
        elif kind is None and self.wishes.text is not None:
            order = ("labelled", "documents")
        for tried in order:
            for choose in tries[tried]:
                if (chosen := choose()) is not None:
                    return chosen
        self._refuse(f"no column looks like {'text' if kind is None else kind}")

    def _refuse(self, fault: str) -> NoReturn:
        names = ", ".join(name[:40] for name in list(self.all)[:20]) or "none"
        raise UserError(f"{self.shown}: {fault}; columns found: {names}; {SET}")

    def _ask(self, question: str, choices: list[str]) -> str:
        if self.wishes.ask is not None:
            return self.wishes.ask(f"{self.shown}: {question}", choices)
        self._refuse(f"{question}? {', '.join(repr(name[:40]) for name in choices[:12])} fit equally well")

    def _wished(self, name: str | None) -> Column | None:
        """The column that the user names, letter case ignored. Raises UserError where there is none."""
        if name is None:
            return None
        exact = self.all.get(name) or self.all.get(f"{name}.0")
        near = [column for key, column in self.all.items() if plain(key) == plain(name)]
        if exact is None and len(near) != 1:
            self._refuse(f"no column {name!r}")
        return exact or near[0]

    # -- preferences

    def _preferences(self) -> Roles | None:
        chosen, rejected = self._best("chosen", self._says), self._best("rejected", self._says)
        if chosen is None or rejected is None:
            return None
        columns = {"chosen": chosen.name, "rejected": rejected.name}
        others = {chosen.name, rejected.name}
        prompt = self._wished(self.wishes.text) or self._best("instruction", self._says, others)
        if prompt is not None and not (prompt.is_conversation and self._is_whole(chosen)):
            columns = {"instruction": prompt.name, **columns}
            context = self._context({*others, prompt.name})
            if context is not None and not prompt.is_conversation:
                columns |= {"input": context.name}
        elif prompt is None and not (chosen.is_conversation or chosen.transcripts >= 0.8 * chosen.seen):
            return None
        return Roles("preferences", columns)

    def _is_whole(self, column: Column) -> bool:
        """Whether the lists of messages begin with a question, so that they hold the prompt too."""
        return column.is_conversation and column.openings >= 0.8 * (column.conversations + column.written)

    # -- instructions

    def _messages(self) -> Roles | None:
        wished = self._wished(self.wishes.text)
        pool = [wished] if wished is not None else list(self.all.values())
        talks = [column for column in pool if column.is_conversation and self._is_whole(column)]
        if wished is None and len(talks) > 1:
            named = [column for column in talks if plain(column.name) in ("messages", "conversations", "conversation")]
            talks = named[:1] or talks
        if not talks:
            return None
        if len(talks) == 1:
            name = talks[0].name
        else:
            name = self._ask("which column holds the conversations", [column.name for column in talks])
        return Roles("instructions", {"messages": name})

    def _written_messages(self) -> Roles | None:
        """Conversations as JSON text, as tables hold them."""
        pool = [self._wished(self.wishes.text)] if self.wishes.text is not None else list(self.all.values())
        written = [c for c in pool if c is not None and c.written >= 0.8 * c.seen > 0]
        return Roles("instructions", {"messages": written[0].name}) if len(written) == 1 else None

    def _instructions(self) -> Roles | None:
        if self.wishes.text is not None or self.wishes.label is not None:
            return None
        for asked, answered in _PAIRS:
            answer = self._best(answered, self._says)
            question = self._best(asked, self._says, {answer.name} if answer else set())
            if question is None or answer is None:
                continue
            if asked in ("input", "long", "source") and answer.is_label(self.rows) and self.wishes.kind is None:
                continue
            if self._is_verdict():
                self._refuse(
                    "a prompt, a completion and a verdict in each row (unpaired preferences) are not supported; keep "
                    "the good rows and set KIND=instructions"
                ) if self.wishes.kind is None else None
            columns = {"instruction": question.name, "output": answer.name}
            context = self._context({question.name, answer.name})
            if asked == "instruction" and context is None:
                context = self._best("long", self._says, {question.name, answer.name}, most=1000)
            if asked == "instruction" and context is not None and not question.is_conversation:
                columns = {"instruction": question.name, "input": context.name, "output": answer.name}
            return Roles("instructions", columns)
        return self._translation()

    def _context(self, but: set[str]) -> Column | None:
        """The column of an `input`, which may be empty everywhere."""
        return self._best("input", lambda c: c.seen == 0 or self._says(c), but, most=1000)

    def _is_verdict(self) -> bool:
        """Whether a boolean label stands beside prompt and completion."""
        return any(
            plain(name) == "label" and column.values and all(isinstance(value, bool) for value in column.values)
            for name, column in self.all.items()
        )

    def _translation(self) -> Roles | None:
        pair = [c for c in self.all.values() if is_language(c.name) and c.is_text(self.rows)]
        if len(pair) != 2 or len([c for c in self.all.values() if c.is_text(self.rows)]) > 2:
            return None
        first, second = pair
        told = f"a translation from {first.name} to {second.name}"
        return Roles("instructions", {"instruction": first.name, "output": second.name}, (told,))

    def _named_pair(self) -> Roles | None:
        """With `kind: instructions`: the columns that the user names as text and label, or the only two texts."""
        question, answer = self._wished(self.wishes.text), self._wished(self.wishes.label)
        if self.wishes.kind != "instructions":
            return self._asked_and_answered()
        texts = [c.name for c in self.all.values() if c.is_text(self.rows) and c not in (question, answer)]
        if question is None and texts:
            asked = self._ask("which column holds the questions", texts) if len(texts) > 2 - bool(answer) else texts[0]
            question = self.all[asked]
            texts.remove(asked)
        if answer is None and texts:
            answer = self.all[self._ask("which column holds the answers", texts) if len(texts) > 1 else texts[0]]
        if question is None or answer is None:
            return None
        return Roles("instructions", {"instruction": question.name, "output": answer.name})

    def _asked_and_answered(self) -> Roles | None:
        """Two texts of which one ends in question marks."""
        if self.wishes.text is not None or self.wishes.label is not None:
            return None
        texts = [c for c in self.all.values() if c.is_text(self.rows) and not c.is_label(self.rows) and not _meta(c)]
        asking = [c for c in texts if c.questions >= 0.7 * c.texts]
        if len(texts) != 2 or len(asking) != 1:
            return None
        other = next(c for c in texts if c is not asking[0])
        told = f"{asking[0].name!r} ends in question marks"
        return Roles("instructions", {"instruction": asking[0].name, "output": other.name}, (told,))

    # -- labelled texts and documents

    def _labelled(self) -> Roles | None:
        wished = self._wished(self.wishes.label)
        label = wished or self._label()
        if label is None:
            if self.wishes.kind == "labelled":
                self._refuse("no column looks like a label")
            return None
        if label.several > 0.5 * label.seen:
            self._refuse(f"column {label.name!r} has several labels in a row, which is not supported yet")
        text = self._wished(self.wishes.text) or self._text({label.name})
        if text is None:
            return None
        return Roles("labelled", {"text": text.name, "label": label.name})

    def _label(self) -> Column | None:
        """The column with the best evidence for a label; of a code and its name, the name."""
        text = self.wishes.text
        pool = {}
        for name, column in self.all.items():
            if name == text or name.removesuffix(".0") != name:
                continue
            if (value := self._label_evidence(column)) is not None:
                pool[name] = value
        if not pool:
            return self._several_labels()
        ordered = sorted(pool, key=lambda name: -pool[name])
        best = ordered[0]
        if pool[best] < 1:
            return None
        twins = [name for name in ordered[1:] if self.columns.one_to_one(best, name)]
        if self.all[best].is_numeric or self._is_boolean(best):
            named = [name for name in twins if self.all[name].texts and not self.all[name].is_numeric]
            best = named[0] if named else best
        rivals = [name for name in ordered if name != best and name not in twins and pool[name] > pool[best] - 0.75]
        rivals = [name for name in rivals if not self.columns.one_to_one(best, name)]
        if rivals:
            best = self._ask("which column holds the labels", [best, *rivals])
        return self.all[best]

    def _several_labels(self) -> Column | None:
        lists = [c for c in self.all.values() if c.several > 0.5 * c.seen > 0 and _is_named(c, "label") is not None]
        return lists[0] if lists else None

    def _is_boolean(self, name: str) -> bool:
        return all(isinstance(value, bool) for value in self.all[name].values)

    def _label_evidence(self, column: Column) -> float | None:
        """Above 1 for a label; None where it cannot be one."""
        by_name = _is_named(column, "label")
        whole = by_name is not None and by_name < 1000
        few_rows = whole and self.rows <= 12 and bool(column.values) and column.length <= 40
        single = whole and len(column.values) == 1 and self.rows > 1 and column.length <= 40
        if not column.is_label(self.rows) and not few_rows and not single:
            return None
        total = 4.0 if whole else 3.0 if by_name is not None else 0.0
        if not total and (grade := _is_named(column, "grade")) is not None:
            total = 2.5 if grade < 1000 else 2.0
        if not total and is_code_of(column.name, "label"):
            total = 2.5
        if not total and _meta(column):
            return None
        kinds = len(column.values)
        total += 1.0 if kinds <= 10 else 0.5 if kinds <= 20 else 0.0
        if column.is_numeric:
            return total if total >= 2 or self._is_code(column) else None
        return total + 1.0

    def _is_code(self, column: Column) -> bool:
        """Whether numbers of an unnamed column are 0, 1, ... or 1, 2, ..., as classes are numbered."""
        try:
            values = sorted(int(value) for value in column.values)
        except ValueError:
            return False
        return values in ([-1, 1], [-1, 0, 1], [0, 4], [0, 2, 4]) or (
            values[0] in (0, 1) and values == list(range(values[0], values[-1] + 1)) and len(values) <= 10
        )

    def _text(self, but: set[str]) -> Column | None:
        """The column of the text: by its name, else the longest by far."""
        texts = [c for c in self.all.values() if c.name not in but and c.is_text(self.rows) and not _meta(c)]
        texts = [c for c in texts if not self._is_part(c)]
        if not texts:
            texts = [c for c in self.all.values() if c.name not in but and c.texts and c.letters >= 0.6 * c.texts]
            texts = [c for c in texts if _is_named(c, "text") is not None and not c.is_numeric]
        if not texts:
            return None
        longest = max(texts, key=lambda c: c.length)
        whole = [c for c in texts if (place := _is_named(c, "text")) is not None and place < 1000]
        partly = [c for c in texts if _is_named(c, "text") is not None]
        for named in (whole, partly):
            if named and (whole or longest.length <= 5 * max(c.length for c in named)):
                return self._of_named(named)
        rest = [c for c in texts if c is not longest]
        if all(longest.length >= 1.3 * c.length for c in rest) or all(c.is_label(self.rows) for c in rest):
            return longest
        return self.all[self._ask("which column holds the text", [c.name for c in texts])]

    def _of_named(self, named: list[Column]) -> Column:
        """Of columns with names of texts the longest; of equally long ones that of the more usual name."""
        longest = max(named, key=lambda c: c.length)
        equal = [c for c in named if longest.length < 1.3 * c.length]
        best = min(equal, key=lambda c: _is_named(c, "text") or 0)
        rivals = [c.name for c in equal if c is not best and _is_named(c, "text") == _is_named(best, "text")]
        return self.all[self._ask("which column holds the text", [best.name, *rivals])] if rivals else best

    def _documents(self) -> Roles | None:
        wished = self._wished(self.wishes.text)
        talks = [c for c in self.all.values() if c.is_conversation]
        if wished is None and talks and not any(c.is_text(self.rows) for c in self.all.values()):
            return Roles("documents", {"messages": talks[0].name})
        if wished is not None and wished.is_conversation:
            return Roles("documents", {"messages": wished.name})
        text = wished or self._text(set())
        return None if text is None else Roles("documents", {"text": text.name})

    # -- shared

    def _says(self, column: Column) -> bool:
        """Whether a column holds texts or lists of messages, short answers included."""
        if column.is_conversation:
            return True
        wordy = column.texts >= 0.9 * column.seen and column.letters + column.numbers >= 0.5 * column.texts
        return column.seen > 0 and wordy and not (column.name.endswith(".0") and "." not in column.name[:-2])

    def _is_part(self, column: Column) -> bool:
        """Whether the first element of a list is not all of it."""
        whole = self.all.get(column.name.removesuffix(".0")) if column.name.endswith(".0") else None
        return whole is not None and whole.several > 0

    def _best(
        self, role: str, fits: Callable[[Column], bool], but: set[str] | None = None, most: int = _UNNAMED
    ) -> Column | None:
        """The column whose name fits a role best."""
        ranked = [
            (place, number, column)
            for number, column in enumerate(self.all.values())
            if column.name not in (but or set())
            and (place := _is_named(column, role)) is not None
            and place < most
            and fits(column)
        ]
        return min(ranked)[2] if ranked else None


def _is_named(column: Column, role: str) -> int | None:
    """How well the last part of a path fits a role (see `names.rank`); where it does not, the parts before it."""
    parts = [part for part in column.name.split(".") if not part.isdecimal()]
    places = [rank(part, role) for part in parts[::-1]]
    if places and places[0] is not None:
        return places[0]
    others = [place for place in places[1:] if place is not None]
    return 100 + min(others) if others else None


def _meta(column: Column) -> bool:
    """Whether a name is that of data about the record: an id, a split, a language, an author, a date."""
    place = rank(column.name.rpartition(".")[2], "meta")
    return place is not None and rank(column.name.rpartition(".")[2], "text") is None


def labels_of(column: Any) -> dict[str, str]:
    """Values of a label column that are no texts -> their names; empty where all are texts, which need no names."""
    values = list(column.values)
    if all(isinstance(value, str) for value in values):
        return {}
    named = {}
    for value in values:
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        named[str(whole).lower() if isinstance(whole, int) else str(whole)] = (
            str(whole).lower() if isinstance(whole, bool) else str(whole)
        )
    return dict(sorted(named.items()))
