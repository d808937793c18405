"""Letter case: the whole text in small letters, in capitals, or with a capital at each word, by the language's rules.

Turkish and Azerbaijani have i with a dot (İ, i) and without (I, ı); Unicode SpecialCasing.txt.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Section
from pipeline.data.originals import Changed, Context, Original

_DOTTED = ("tr", "az")
Form = Literal["lower", "upper", "title"]


class Settings(Section):
    """Forms of a text."""

    forms: Annotated[list[Literal["lower", "upper", "title"]], Field(min_length=1)] = Field(
        examples=[["lower", "upper"], ["title"]]
    )
    """One of these is drawn for each text."""


def build(settings: Settings, context: Context) -> "Case":
    """The augmentation."""
    return Case(tuple(settings.forms), context)


@dataclass(frozen=True)
class Case:
    """Letter case drawn from some forms."""

    forms: tuple[Form, ...]
    context: Context

    def texts(self, originals: Iterable[Original]) -> Iterator[Changed]:
        """Texts in another case; None where it is that of the text already."""
        for original in originals:
            form = self.forms[int(self.context.draws("case", original).random() * len(self.forms))]
            changed = cased(original.text, form, original.language)
            yield changed if changed != original.text else None


def cased(text: str, form: Form, language: str) -> str:
    """The text in a form, by the rules of its language."""
    if form == "lower":
        return (text.replace("I", "ı").replace("İ", "i") if language in _DOTTED else text).lower()
    if form == "upper":
        return (text.replace("i", "İ") if language in _DOTTED else text).upper()
    words = text.split(" ")
    return " ".join(cased(word[:1], "upper", language) + cased(word[1:], "lower", language) for word in words)
