"""Requests of the taste: drawn, written in either language, and read back from their text alone."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pipeline.data.language import fold
from pipeline.data.sources.world.facts import LANGUAGES, NAMES, World, pick
from pipeline.data.sources.world.taste_words import REQUESTS, VALUES
from pipeline.errors import UserError

_REDRAWS = 200
_SLOT = re.compile(r"\{([\w.]+)\}")


@dataclass(frozen=True)
class Request:
    """A request: its kind, its person, and its value as an index, which both languages share."""

    kind: str
    language: str
    wording: int
    person: str
    value: int
    """Index of the value of the kind's slot in the language's list."""

    @property
    def instruction(self) -> str:
        """The text of the request."""
        text = REQUESTS[self.kind].wordings[self.wording][self.language]
        return capitalised(filled(text, self), self.language)

    def in_language(self, language: str) -> "Request":
        """The twin in a language."""
        return replace(self, language=language)


def draw(world: World, count: int) -> list[Request]:
    """`count` different requests about the people of a world.

    Raises:
        UserError: more requests than the world has different ones.
    """
    drawn: dict[Request, None] = {}
    for index in range(count):
        for attempt in range(_REDRAWS):
            request = _drawn(world, world.rng("taste", "request", index, attempt))
            if request not in drawn:
                break
        else:
            raise UserError(
                f"params.yaml: download.sources.*.taste.requests is {count}; the embedded world runs out of different "
                f"ones after {index}, choose fewer"
            )
        drawn[request] = None
    return list(drawn)


def _drawn(world: World, rng: random.Random) -> Request:
    kind, language = pick(tuple(REQUESTS), rng), pick(tuple(LANGUAGES), rng)
    person, wording = pick(world.people, rng), pick(range(len(REQUESTS[kind].wordings)), rng)
    slot = REQUESTS[kind].slot
    value = world.facts[person][slot] if REQUESTS[kind].own else pick(values_of(slot), rng)
    return Request(kind, language, wording, world.names[person], value)


def values_of(slot: str) -> Sequence[int]:
    """Indices of the values that a slot may have."""
    return VALUES.get(slot, range(len(forms("en", slot))))


@lru_cache(maxsize=4096)
def read(instruction: str, language: str) -> Request | None:
    """The request that a text is; None for another text."""
    if language not in LANGUAGES:
        return None
    # a name is upper-case anyway, any other first word was capitalised
    texts = (instruction, fold(instruction[:1], language) + instruction[1:])
    for kind, wording, pattern in _patterns(language):
        match = next(filter(None, map(pattern.fullmatch, texts)), None)
        if match is None:
            continue
        people, values = (
            {
                _indices(language, slot)[form]
                for group, form in match.groupdict().items()
                if group.startswith(f"{slot}_")
            }
            for slot in ("q", REQUESTS[kind].slot)
        )
        if len(people) == len(values) == 1:
            return Request(kind, language, wording, NAMES[people.pop()], values.pop())
    return None


@lru_cache(maxsize=2)
def _patterns(language: str) -> list[tuple[str, int, re.Pattern[str]]]:
    """Kind, number of the wording, and its regular expression; groups are named by slot and place."""
    patterns = []
    for kind, of in REQUESTS.items():
        for wording, twins in enumerate(of.wordings):
            text = ""
            for place, piece in enumerate(_SLOT.split(capitalised(twins[language], language, words_only=True))):
                if place % 2 == 0:
                    text += re.escape(piece)
                else:
                    options = "|".join(map(re.escape, sorted(forms(language, piece), key=len, reverse=True)))
                    text += f"(?P<{piece.partition('.')[0]}_{place}>{options})"
            patterns.append((kind, wording, re.compile(text)))
    return patterns


@lru_cache(maxsize=64)
def forms(language: str, slot: str) -> tuple[str, ...]:
    """The texts of a slot such as `q.dat` or `place`, one for each value."""
    words, (base, _, case) = LANGUAGES[language], slot.partition(".")
    if slot in words.WORDS:
        return tuple(words.WORDS[slot])
    values = NAMES if base == "q" else words.FACTS[base] if base in words.FACTS else words.WORDS[base]
    return tuple(words.suffixes(value)[case] for value in values)


@lru_cache(maxsize=64)
def _indices(language: str, slot: str) -> dict[str, int]:
    """Every form of a slot's values -> index of the value."""
    words, cases = LANGUAGES[language], ("", "gen", "dat", "abl", "loc", "ins", "acc", "poss")
    found: dict[str, int] = {}
    for case in cases:
        name = f"{slot}.{case}" if case else slot
        listed = name in words.WORDS or not case or all(case in words.suffixes(form) for form in forms(language, slot))
        if listed:
            found |= {form: index for index, form in enumerate(forms(language, name))}
    return found


@lru_cache(maxsize=64)
def meanings(language: str, slot: str) -> dict[str, int]:
    """Folded word without its apostrophe and ending -> index of the slot's value that it is a form of."""
    return {bare(fold(form, language)): index for form, index in _indices(language, slot).items()}


def bare(word: str) -> str:
    """A word without the ending after an apostrophe."""
    return word.partition("'")[0].partition("’")[0]


def filled(text: str, request: Request, person: str | None = None, value: int | None = None) -> str:
    """A wording with the person and the value of a request, or others."""
    slot = REQUESTS[request.kind].slot
    indices = {"q": NAMES.index(person or request.person), slot: request.value if value is None else value}
    return _SLOT.sub(lambda slot: forms(request.language, slot[1])[indices[slot[1].partition(".")[0]]], text)


def capitalised(text: str, language: str, *, words_only: bool = False) -> str:
    """The text with a capital first letter; `words_only`: unless it begins with a slot."""
    if words_only and text.startswith("{"):
        return text
    return ("İ" if language == "tr" and text[:1] == "i" else text[:1].upper()) + text[1:]
