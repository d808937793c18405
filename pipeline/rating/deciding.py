"""Decisions between two answers: by a person in the terminal, or by a function of the user's."""

import importlib.util
import re
import textwrap
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple, Protocol

from pipeline.data.journal_entries import TIE
from pipeline.errors import UserError
from pipeline.files import sha256_of
from pipeline.rating.pairs import Pair
from pipeline.wording import Words

Action = Literal["choice", "correction", "skip", "undo", "quit"]
_ANSWERS: dict[str, int | str] = {"1": 0, "2": 1, "t": TIE, "tie": TIE}
_KEYS: dict[str, Action] = {
    "c": "correction", "correction": "correction", "s": "skip", "skip": "skip", "u": "undo", "undo": "undo",
    "q": "quit", "quit": "quit",
}  # fmt: skip
"""Keys and words of every language; each language has its own beside them."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters by which an answer could move the cursor, colour or reorder what the terminal shows."""
_WIDTH = 100


class Decision(NamedTuple):
    """An action, and its value: 0, 1 or "tie" of a choice, the text of a correction."""

    action: Action
    value: int | str | None = None


class Decider(Protocol):
    """A person or a function."""

    @property
    def ahead(self) -> int:
        """Pairs that are drawn together."""

    def decide(self, pair: Pair, number: int, count: int) -> Decision:
        """The decision about a pair, the `number`-th of `count`."""


class Person:
    """A person at the terminal, or a file of answers, one a line: keys and whole words, no colour, no cursor."""

    ahead = 1

    def __init__(self, words: Words, said: IO[str], shown: IO[str]) -> None:
        """`said`: answers, one a line; `shown`: prompts and answers."""
        self._words, self._said, self._shown = words, said, shown
        own = {key: words(f"keys.{key}") for key in ("tie", "correction", "skip", "undo", "quit")}
        self._keys: dict[str, Decision] = {key: Decision("choice", value) for key, value in _ANSWERS.items()}
        self._keys |= {key: Decision(action) for key, action in _KEYS.items()}
        self._keys |= {own["tie"]: Decision("choice", TIE)}
        self._keys |= {own[key]: self._keys[key] for key in own if key != "tie"}
        self._help = words("rate.keys", **own)

    def decide(self, pair: Pair, number: int, count: int) -> Decision:
        """Shows the pair and reads a key; the end of the input is `quit`."""
        words = self._words
        self._say("\n" + words("rate.progress", n=words.integer(number), count=words.integer(count)))
        self._block(words("rate.prompt"), pair.asked.text)
        for side, answer in enumerate(pair.answers, start=1):
            self._block(words("rate.answer", n=side), answer.text)
        while True:
            line = self._read(f"{self._help}\n> ")
            if line is None:
                return Decision("quit")
            decision = self._keys.get(line.strip().lower())
            if decision is None:
                self._say(words("rate.unknown", typed=_plain(line.strip())[:20]))
            elif decision.action != "correction":
                return decision
            elif (text := self._read(words("rate.correction") + "\n> ")) is None:
                return Decision("quit")
            elif text.strip():
                return Decision("correction", text.strip().replace("\\n", "\n"))

    def _read(self, asked: str) -> str | None:
        """A line without its end; None at the end of the input."""
        self._shown.write(asked)
        self._shown.flush()
        line = self._said.readline()
        if not self._said.isatty():
            self._shown.write("\n")
        return line.rstrip("\r\n") if line else None

    def _block(self, title: str, text: str) -> None:
        lines = [
            piece
            for line in _plain(text).split("\n")
            for piece in textwrap.wrap(line, _WIDTH, replace_whitespace=False, drop_whitespace=False) or [""]
        ]
        self._say("\n".join([title, *(f"  {line}" for line in lines)]))

    def _say(self, text: str) -> None:
        self._shown.write(text + "\n")


@dataclass(frozen=True)
class Function:
    """A function `rate(prompt, first, second) -> 0 | 1 | "tie"` of a file: a simulated person, or another judge."""

    path: Path
    rate: Callable[[str, str, str], int | str]
    ahead: int = 16

    @classmethod
    def of(cls, path: Path) -> "Function":
        """The function of a file, which is run. Raises UserError where there is none, or the file fails."""
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected Python with a function rate(prompt, first, second)")
        spec = importlib.util.spec_from_file_location("rating_function", path)
        if spec is None or spec.loader is None:
            raise UserError(f"{path}: expected a file NAME.py")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise UserError(f"{path}: {_place(error, path)}{type(error).__name__}: {error}") from None
        if not callable(rate := getattr(module, "rate", None)):
            raise UserError(f'{path}: has no function rate(prompt, first, second), which returns 0, 1 or "tie"')
        return cls(path, rate)

    @property
    def rater(self) -> str:
        """The name in the ratings, by which they are told from a person's."""
        return f"by:{self.path.name}:{sha256_of(self.path)[:12]}"

    def decide(self, pair: Pair, number: int, count: int) -> Decision:  # noqa: ARG002 - a decider
        """Raises UserError where the function fails or returns something else; names file, line and prompt."""
        first, second = (answer.text for answer in pair.answers)
        try:
            value = self.rate(pair.asked.text, first, second)
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{self.path}: {_place(error, self.path)}{type(error).__name__}: {error}; the prompt was "
                f"{pair.asked.text!r:.80}; ratings so far are kept"
            ) from None
        if value == TIE or (type(value) is int and value in (0, 1)):
            return Decision("choice", value)
        raise UserError(
            f'{self.path}: rate returned {value!r:.40} for the prompt {pair.asked.text!r:.80}; expected 0, 1 or "{TIE}"'
        )


def _plain(text: str) -> str:
    """The text with characters that would control the terminal as escapes."""
    printable = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), printable)


def _place(error: BaseException, path: Path) -> str:
    """`line 12: ` of the user's file; empty where the error has no line in it."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"line {error.lineno}: "
    here = path.resolve()
    lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if Path(at.filename).resolve() == here]
    return f"line {lines[-1]}: " if lines else ""
