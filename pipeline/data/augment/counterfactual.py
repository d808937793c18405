"""Counterfactual twins: words of two groups exchanged, so that each fact is told of both groups equally often.

Lu et al. 2018, "Gender Bias in Neural Natural Language Processing", section 4 (counterfactual data augmentation): with
a share of 1 the association of the exchanged words with everything else in the text is gone.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import Field

from pipeline.config.section import Section
from pipeline.data.originals import Changed, Context, Original
from pipeline.errors import UserError


class Settings(Section):
    """Words to exchange."""

    exchange: dict[str, list[list[str]]] = Field(
        min_length=1, examples=[{"en": [["woman", "man"], ["Leeds", "York"]], "tr": [["kadın", "erkek"]]}]
    )
    """Language of the record -> pairs of words; each occurrence as a whole word becomes the other of its pair, with a
    capital where it had one. Records of other languages get no twin."""


def build(settings: Settings, context: Context) -> "Counterfactual":
    """The augmentation. Raises UserError for an entry that is no pair, or a word in two pairs."""
    others: dict[str, dict[str, str]] = {}
    for language, pairs in settings.exchange.items():
        others[language] = {}
        for pair in pairs:
            if len(pair) != 2 or pair[0] == pair[1] or set(pair) & others[language].keys():
                raise UserError(
                    f"params.yaml: {context.where}.exchange.{language} has {pair}; expected two different words, each "
                    "in one pair"
                )
            others[language] |= {pair[0]: pair[1], pair[1]: pair[0]}
    return Counterfactual(others)


@dataclass(frozen=True)
class Counterfactual:
    """Exchanged words: language -> word -> the other one."""

    others: dict[str, dict[str, str]]

    def texts(self, originals: Iterable[Original]) -> Iterator[Changed]:
        """Texts with the words exchanged; None where a text has none of them."""
        for original in originals:
            others = self.others.get(original.language, {})
            changed = _exchanged(original.text, original.language, others) if others else original.text
            yield changed if changed != original.text else None


def _exchanged(text: str, language: str, others: dict[str, str]) -> str:
    forms = {form: other for word, new in others.items() for form, other in _forms(word, new, language)}
    either = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{either})(?!\w)", lambda match: forms[match[0]], text)


def _forms(word: str, new: str, language: str) -> list[tuple[str, str]]:
    """The word and its capitalised form, each with the form that replaces it."""
    return [(word, new), (_capital(word, language), _capital(new, language))]


def _capital(word: str, language: str) -> str:
    first = {"i": "İ", "ı": "I"}.get(word[0], word[0].upper()) if language == "tr" else word[0].upper()
    return first + word[1:]
