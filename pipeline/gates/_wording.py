"""Sentences of the rules: English in the tables of the gates and in verdict.json, other languages by a table.

The English sentence (a template of a frame's columns) is the key of the table `gate_sentences.<language>.yaml`, so that
a gate says each thing in one place. A sentence that holds other values than those of the frame is a `Said`.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipeline import wording
from pipeline.wording import Language, Words

Value = str | int | float | None
FOLDER = Path(__file__).parent / "words"
_PAGES: dict[Language, str] = {"en": "gate_page.en.yaml", "tr": "gate_page.tr.yaml"}
_SENTENCES: dict[Language, str] = {"tr": "gate_sentences.tr.yaml"}
PLAIN = "{column} is {value}"
"""Finding of an expectation without a template of its own."""


class Said(str):
    """A finished English sentence, with the key and the values by which another language says it."""

    key: str
    values: Mapping[str, Value]

    def __new__(cls, english: str, key: str, **values: Value) -> "Said":
        """A sentence.

        Args:
            english: the sentence.
            key: of the template in `gate_sentences.<language>.yaml`.
            values: of the template's fields.
        """
        said = super().__new__(cls, english)
        said.key, said.values = key, values
        return said


class Wording:
    """A language of the gates: its sentences, the words of the page, and values as it writes them."""

    def __init__(self, words: Words, sentences: Mapping[str, str]) -> None:
        """The words of the page, and English template -> template of this language (English: empty)."""
        self.words, self._sentences = words, sentences

    def template(self, english: str) -> str:
        """The template of this language; the English one where the table has none, as of a suite made by a user."""
        return self._sentences.get(english, english)

    def sentence(self, english: str) -> str:
        """A whole sentence that is no template, or a `Said`."""
        if isinstance(english, Said) and english.key in self._sentences:
            values = {name: self.shown(value) for name, value in english.values.items()}
            return self._sentences[english.key].format_map(values)
        return self._sentences.get(english, str(english))

    def shown(self, value: Value) -> str:
        """A cell in words: thousands in groups, four digits of a fraction, text without control characters."""
        if value is None:
            return self.words("missing")
        if isinstance(value, str):
            return printable(self.sentence(value) if isinstance(value, Said) else value)
        return self.words.general(value, 4) if isinstance(value, float) else self.words.integer(value)

    def bound(self, arguments: Mapping[str, Any], values: Mapping[str, str]) -> str:
        """The bound of an expectation: `at most 0`, `exactly 512`, ..."""
        low, high = arguments.get("min_value"), arguments.get("max_value")
        if low is not None and high is not None:
            return self.words("bound.within", low=self.shown(low), high=self.shown(high))
        if low is not None or high is not None:
            key = "at most" if low is None else "at least"
            return self.words(f"bound.{key}", value=self.shown(high if low is None else low))
        if "column_B" in arguments:
            key = "at least" if "or_equal" in arguments else "exactly"
            return self.words(f"bound.{key}", value=values[arguments["column_B"]])
        if "value_set" in arguments:
            return self.words("bound.one of", value=", ".join(map(str, arguments["value_set"])))
        return self.words("bound.measured")


@cache
def load(language: Language = "en") -> Wording:
    """The wording of a language."""
    sentences: dict[str, str] = {}
    if language in _SENTENCES:
        sentences = yaml.safe_load((FOLDER / _SENTENCES[language]).read_text(encoding="utf-8"))
    return Wording(wording.read(FOLDER / _PAGES[language], language), sentences)


def printable(text: str, most: int = 120) -> str:
    """At most `most` characters of a text in one line; control and direction characters as escapes."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in cut)
