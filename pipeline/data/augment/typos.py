"""Typing errors: a letter becomes its neighbour on the keyboard, is left out, doubled, or changes places with the next.

The keyboard is the Turkish Q layout for Turkish texts, else the American one. Digits and signs stay, so that a number
never becomes another one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Annotated

from pydantic import Field

from pipeline.config.section import Section
from pipeline.data.originals import Changed, Context, Original

_ROWS = {
    "tr": ("qwertyuıopğü", "asdfghjklşi", "zxcvbnmöç"),
    "en": ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
}


class Settings(Section):
    """Frequency of the errors."""

    rate: Annotated[float, Field(gt=0, le=1)] = Field(examples=[0.05, 1.0])
    """Probability of an error at each letter."""


def _neighbours(rows: tuple[str, ...]) -> dict[str, str]:
    """Letter -> the letters beside it, and those above and below, where rows are shifted by half a key."""
    near: dict[str, str] = {}
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            places = [(y, x - 1), (y, x + 1), (y - 1, x), (y - 1, x + 1), (y + 1, x - 1), (y + 1, x)]
            near[letter] = "".join(rows[b][a] for b, a in places if 0 <= b < len(rows) and 0 <= a < len(rows[b]))
    return near


_NEAR = {language: _neighbours(rows) for language, rows in _ROWS.items()}


def build(settings: Settings, context: Context) -> "Typos":
    """The augmentation."""
    return Typos(settings.rate, context)


@dataclass(frozen=True)
class Typos:
    """Typing errors at a rate."""

    rate: float
    context: Context

    def texts(self, originals: Iterable[Original]) -> Iterator[Changed]:
        """Texts with errors; None where no letter was drawn."""
        for original in originals:
            near = _NEAR["tr" if original.language == "tr" else "en"]
            changed = _mistyped(original.text, near, self.rate, self.context.draws("typos", original))
            yield changed if changed != original.text else None


def _mistyped(text: str, near: dict[str, str], rate: float, draws: Random) -> str:
    letters, i = list(text), 0
    while i < len(letters):
        letter = letters[i]
        small = "i" if letter == "İ" else letter.lower()
        if letter.isalpha() and draws.random() < rate:
            kind = int(draws.random() * 4)
            others = near.get(small, "")
            if kind == 0 and others:
                letters[i] = _as(letter, others[int(draws.random() * len(others))])
            elif kind == 1 and i + 1 < len(letters) and letters[i + 1].isalpha():
                letters[i], letters[i + 1] = letters[i + 1], letter
                i += 1
            elif kind == 2:
                letters[i] = letter * 2
            else:
                letters[i] = ""
        i += 1
    return "".join(letters)


def _as(pattern: str, letter: str) -> str:
    """The letter in the case of `pattern`; the capital of i is İ beside Turkish letters only, where ı is I."""
    return letter.upper() if pattern.isupper() else letter
