"""Dropped diacritics, as people type on a foreign keyboard: ş becomes s, ı becomes i, ğ becomes g, é becomes e."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from pipeline.config.section import Section
from pipeline.data.originals import Changed, Context, Original

_DOTS = str.maketrans("ıİ", "iI")  # Unicode does not decompose ı, and İ only into I and a dot
_WORD = re.compile(r"\S+")


class Settings(Section):
    """Share of the words."""

    rate: Annotated[float, Field(gt=0, le=1)] = Field(examples=[1.0, 0.5])
    """Probability that a word is written without its diacritics; 1: all of the text."""


def build(settings: Settings, context: Context) -> "Diacritics":
    """The augmentation."""
    return Diacritics(settings.rate, context)


@dataclass(frozen=True)
class Diacritics:
    """Words without diacritics, at a rate."""

    rate: float
    context: Context

    def texts(self, originals: Iterable[Original]) -> Iterator[Changed]:
        """Texts with fewer diacritics; None where there are none, or none was drawn."""
        for original in originals:
            draws = self.context.draws("diacritics", original)

            def maybe_plain(word: re.Match[str], draw: Callable[[], float] = draws.random) -> str:
                return plain(word[0]) if draw() < self.rate else word[0]

            changed = _WORD.sub(maybe_plain, original.text)
            yield changed if changed != original.text else None


def plain(text: str) -> str:
    """The text without diacritics; letters that have none stay as they are."""
    decomposed = unicodedata.normalize("NFD", text.translate(_DOTS))
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if unicodedata.category(c) != "Mn"))
