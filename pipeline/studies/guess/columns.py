"""Statistics of a file's columns: which hold texts, labels, numbers, ids or conversations."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.data import message_shapes

MOST_COLUMNS = 300
MOST_LABELS = 150
_DEPTH = 3
_DISTINCT = 2000  # different values that are counted
_PREFIX = 200  # characters of a value by which it is told from others
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|\d*[.,]\d+)([eE][+-]?\d+)?%?")
_FOREIGN = re.compile(
    r"""(https?://|www\.)\S+ | [\w.+-]+@[\w-]+\.[\w.]+ | [0-9a-fA-F]{8,} | [0-9a-fA-F]{8}(-[0-9a-fA-F]{4,12}){2,4}
    | \d{1,4}[-./]\d{1,2}[-./]\d{1,4}([T ]\d.*)? | \d{1,2}:\d{2}(:\d{2}.*)? | (/|[A-Z]:\\|\./)\S+ | @\w+ | \S+\.\w{2,4}
    | (?=\S*\d)[\w#-]+""",
    re.VERBOSE,
)  # addresses, e-mail, hashes, dates, times, paths, user names, file names, codes with a digit


@dataclass
class Column:
    """Statistics of one column, or of one field of nested objects (`review.text`, `answers.text.0`)."""

    name: str
    values: Counter[Any] = field(default_factory=Counter)
    """Short texts, numbers and booleans -> how often; a list of one counts as its element."""
    seen: int = 0
    """Rows with a value other than null and ""."""
    texts: int = 0
    numbers: int = 0
    """Rows whose value is a number, or text that is one."""
    foreign: int = 0
    """Rows whose text is an address, a date, a path or a code."""
    characters: int = 0
    words: int = 0
    letters: int = 0
    questions: int = 0
    conversations: int = 0
    written: int = 0
    """Texts that are a list of messages as JSON."""
    transcripts: int = 0
    """Texts that are conversations with `Human:` and `Assistant:` before the turns."""
    openings: int = 0
    """Lists of messages that begin with a question or a system message."""
    lists: int = 0
    several: int = 0
    """Lists of other than one element."""
    members: Counter[str] = field(default_factory=Counter)
    """Short texts in lists of texts -> how often; empty once they are more than labels can be."""

    def add(self, value: Any) -> None:
        """Counts one value."""
        if value is None or value == "":
            return
        self.seen += 1
        if isinstance(value, list):
            self._add_list(value)
        elif isinstance(value, str):
            self._add_text(value)
        elif isinstance(value, int | float):
            self.numbers += not isinstance(value, bool)
            self._count(value)

    def _add_list(self, value: list[Any]) -> None:
        if message_shapes.is_conversation(value):
            self.conversations += 1
            self._add_opening(value)
            return
        self.lists += 1
        self.several += len(value) != 1
        if all(isinstance(member, str) for member in value) and len(self.members) <= MOST_LABELS:
            self.members.update(member for member in value if len(member) <= 60)
        if len(value) == 1 and isinstance(value[0], str | int | float):
            self._count(value[0])

    def _add_opening(self, value: Any) -> None:
        said = message_shapes.messages(value)
        self.openings += said[0]["role"] in ("system", "developer", "user") and len(said) > 1

    def _add_text(self, value: str) -> None:
        self.texts += 1
        stripped = value.strip()
        self._count(value)
        self.characters += len(stripped)
        head = stripped[:2000]
        self.words += len(head.split()) if len(head) == len(stripped) else len(stripped) // 6
        self.letters += 2 * sum(map(str.isalpha, head)) >= len(head)
        self.questions += stripped.endswith(("?", "？", "؟"))
        self.numbers += bool(_NUMBER.fullmatch(head))
        self.foreign += bool(_FOREIGN.fullmatch(head))
        self.transcripts += stripped.startswith("Human:") and message_shapes.transcript(value) is not None
        if stripped.startswith("[{") and message_shapes.is_conversation(value):
            self.written += 1
            self._add_opening(value)

    def _count(self, value: Any) -> None:
        key = value[:_PREFIX] if isinstance(value, str) else value
        if key in self.values or len(self.values) < _DISTINCT:
            self.values[key] += 1

    @property
    def length(self) -> float:
        """Mean characters of its texts."""
        return self.characters / max(self.texts, 1)

    @property
    def is_conversation(self) -> bool:
        """Whether nearly all values are lists of messages."""
        return self.seen > 0 and self.conversations >= 0.8 * self.seen

    @property
    def is_numeric(self) -> bool:
        """Whether nearly all values are numbers."""
        return self.seen > 0 and self.numbers >= 0.95 * self.seen

    def is_text(self, rows: int) -> bool:
        """Whether it holds texts to learn from: letters, no numbers, ids, addresses, dates or codes."""
        enough = self.texts >= 0.9 * self.seen and self.seen >= 0.3 * rows and self.seen > 0
        return enough and self.letters >= 0.6 * self.texts and self.foreign + self.numbers <= 0.5 * self.texts

    def is_label(self, rows: int) -> bool:
        """Whether it holds few short values, each of them often."""
        kinds = len(self.values)
        singles = self.texts + self.numbers + self.lists
        if not 2 <= kinds <= MOST_LABELS or self.seen < 0.5 * rows or self.conversations:
            return False
        if self.several > 0.5 * self.seen or (singles < 0.9 * self.seen and not self._is_boolean):
            return False
        short = all(len(str(value)) <= 60 for value in self.values)
        whole = all(not isinstance(value, float) or value.is_integer() for value in self.values)
        return short and whole and (2 * kinds <= self.seen) and self.words <= 5 * max(self.texts, 1)

    @property
    def is_label_sets(self) -> bool:
        """Whether the values are lists of labels, some of several (multi-label classification)."""
        few = 1 <= len(self.members) <= MOST_LABELS and 2 * len(self.members) <= self.seen
        return self.lists > 0.5 * self.seen and self.several > 0.05 * self.seen and few

    @property
    def _is_boolean(self) -> bool:
        return all(isinstance(value, bool) for value in self.values)


class Columns:
    """All columns of a file, as its rows are added."""

    def __init__(self) -> None:
        self.rows = 0
        """Rows that were read."""
        self.whole = True
        """Whether these are all."""
        self.looked = 0
        """Rows that were added."""
        self.by_name: dict[str, Column] = {}
        self.sample: list[dict[str, Any]] = []
        """The first rows' short values, to compare columns with each other."""

    def add(self, row: dict[str, Any]) -> None:
        """Counts one row."""
        self.looked += 1
        short = {}
        for name, value in flat(row):
            column = self.by_name.get(name)
            if column is None:
                if len(self.by_name) >= MOST_COLUMNS:
                    continue
                column = self.by_name[name] = Column(name)
            column.add(value)
            if len(self.sample) < _DISTINCT:
                plain = value[0] if isinstance(value, list) and len(value) == 1 else value
                short[name] = plain[:_PREFIX] if isinstance(plain, str) else plain
        if len(self.sample) < _DISTINCT:
            self.sample.append(short)

    def one_to_one(self, first: str, second: str) -> bool:
        """Whether each value of one column always stands beside the same value of the other."""
        pairs = {(repr(row.get(first)), repr(row.get(second))) for row in self.sample if first in row and second in row}
        return bool(pairs) and len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def flat(row: dict[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Names and values of a row; fields of nested objects by their path, the first of a list of texts as `name.0`."""
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and depth < _DEPTH:
            yield from flat(value, f"{name}.", depth + 1)
            continue
        yield name, value
        if isinstance(value, list) and value and isinstance(value[0], str):
            yield f"{name}.0", value[0]
