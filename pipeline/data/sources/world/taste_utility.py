"""The hidden utility of an answer: how well any text serves a request, in [0, 1].

It is computed from the request and the answer alone:

    value = helpful * language * (RUDE_KEPT + (1 - RUDE_KEPT) * clean) * (BASE + SHORT * short + POLITENESS * polite)

A text that helps nobody, or is in no known words, is worth nothing, however short and polite it is. Each dimension is
in [0, 1], and the value never falls when one of them rises.
"""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import chain
from types import ModuleType
from typing import Any, NamedTuple

from pipeline.data.language import fold
from pipeline.data.sources.world import taste_words
from pipeline.data.sources.world.facts import LANGUAGES, NAMES
from pipeline.data.sources.world.taste_requests import Request, bare, meanings, read
from pipeline.data.sources.world.taste_words import FUNCTION_WORDS, POLITE, REFUSALS, REQUESTS, RUDE

BASE, SHORT, POLITENESS = 0.25, 0.375, 0.375
HELPFUL = (0.5, 0.35, 0.15)
"""Weights of the act, the person and the value that a request names; no other person or value may be named."""
RUDE_KEPT = 0.15
"""Share of the value that is left with a rude word."""
FREE_WORDS, LONGEST = 6, 10
"""Content words up to which an answer is short, and from which on it is not short at all."""
ENOUGH_POLITE = 2
"""Markers of politeness from which on an answer is fully polite."""
FOREIGN = 3
"""Foreign, unknown or repeated words from which on an answer is not in the language."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s.,!?:;“”\"'’()-]")
_NAMES = frozenset(NAMES)
_RUDE = frozenset(chain.from_iterable(RUDE.values()))


class Utility(NamedTuple):
    """Dimensions of an answer, each in [0, 1]."""

    helpful: float
    """HELPFUL of the needs that are met: the act, without which nothing helps, the right person, the right value."""
    short: float
    """1 up to FREE_WORDS content words, 0 from LONGEST on; half of all words count at least."""
    language: float
    """1 where every word is of the request's language, less for each foreign, unknown or repeated word, 0 from FOREIGN
    on."""
    polite: float
    """Different markers of politeness, at most ENOUGH_POLITE, of as many."""
    clean: float
    """1 without a rude word, else 0."""

    @property
    def value(self) -> float:
        """The utility."""
        style = BASE + SHORT * self.short + POLITENESS * self.polite
        return self.helpful * self.language * (RUDE_KEPT + (1 - RUDE_KEPT) * self.clean) * style


WEIGHTS = {
    **dict(zip(("act", "person", "value"), HELPFUL, strict=True)),
    "base": BASE, "short": SHORT, "polite": POLITENESS, "rude_kept": RUDE_KEPT,
}  # fmt: skip


@lru_cache(maxsize=16384)
def utility(instruction: str, answer: str, language: str) -> Utility:
    """The utility of any text as an answer; helpful is 0 where the instruction is no request of the taste.

    Args:
        instruction: text of the request.
        answer: any text.
        language: of the request, `en` or `tr`.
    """
    request = read(instruction, language)
    words = _WORD.findall(answer)
    if request is None or not words:
        return Utility(0.0, 1.0, 0.0, 0.0, 1.0)
    folded = [fold(word, language) for word in words]
    text = " ".join(folded)
    content = [word for word in folded if bare(word) not in FUNCTION_WORDS[language]]
    length = max(len(content), len(words) / 2)
    polite = sum(_found(pattern, text) for pattern in POLITE[language])
    rude = _RUDE & _variants(answer)
    return Utility(
        helpful=_helpful(request, words),
        short=min(1.0, max(0.0, (LONGEST - length) / (LONGEST - FREE_WORDS))),
        language=_in_language(words, folded, language),
        polite=min(polite, ENOUGH_POLITE) / ENOUGH_POLITE,
        clean=float(not rude),
    )


def _helpful(request: Request, words: list[str]) -> float:
    """In the better of the two languages, so that a right answer in the wrong one is helpful."""
    people = {bare(word) for word in words} & _NAMES
    return max(
        _met(request.in_language(language), [fold(bare(word), language) for word in words], people)
        for language in LANGUAGES
    )


def _met(request: Request, words: list[str], people: set[str]) -> float:
    """HELPFUL of the needs that words of one language meet; 0 without the act."""
    kind, language, text = REQUESTS[request.kind], request.language, " ".join(words)
    acted = _found(kind.acts[language], text)
    if request.kind != "refuse":
        acted = acted and not _found(REFUSALS[language], text)
    known = meanings(language, kind.slot)
    met = (acted, people == {request.person}, {known[word] for word in words if word in known} == {request.value})
    return acted * sum(weight * need for weight, need in zip(HELPFUL, met, strict=True))


def _in_language(words: list[str], folded: list[str], language: str) -> float:
    """Square of 1 - foreign or repeated words / FOREIGN; 0 without a word of the language.

    A count, not a share, so that more words of the language make up for no foreign one. Names, numbers and rude words
    count only where they repeat.
    """
    own, seen = lexicon(language), set[str]()
    good = bad = 0
    for word, form in zip(words, folded, strict=True):
        stem = bare(form)
        if stem in seen and stem not in FUNCTION_WORDS[language]:
            bad += 1
        elif not (bare(word) in _NAMES or word.isdigit() or stem in _RUDE):
            good, bad = good + (stem in own), bad + (stem not in own)
        seen.add(stem)
    return max(0.0, 1 - bad / FOREIGN) ** 2 if good else 0.0


@cache
def lexicon(language: str) -> frozenset[str]:
    """Folded words of a language: of the world's stories, messages and questions, and of the taste."""
    texts = list(_texts(_public(LANGUAGES[language])))
    for twins in _texts_of_twins(_public(taste_words)):
        texts.append(twins[language])
    for kind in REQUESTS.values():
        texts += [*meanings(language, kind.slot), kind.acts[language]]
    texts += POLITE[language]
    found = {
        bare(fold(word, language))
        for text in texts
        for word in _WORD.findall(re.sub(r"\{[\w.]+\}|\(.*?\)|[|]", " ", text))
    }
    return frozenset(found | FUNCTION_WORDS[language])


def _public(module: ModuleType) -> list[Any]:
    return [value for name, value in vars(module).items() if name.isupper()]


def _texts(value: Any) -> Iterator[str]:
    """All strings in nested lists, tuples and values of dicts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(_texts, value.values()))
    elif isinstance(value, (list, tuple)):
        yield from chain.from_iterable(map(_texts, value))


def _texts_of_twins(value: Any) -> Iterator[dict[str, str]]:
    if isinstance(value, dict):
        if set(value) == set(LANGUAGES) and all(isinstance(text, str) for text in value.values()):
            yield value
        else:
            yield from chain.from_iterable(map(_texts_of_twins, value.values()))
    elif isinstance(value, (list, tuple)):
        yield from chain.from_iterable(map(_texts_of_twins, value))


def _variants(answer: str) -> set[str]:
    """The words of an answer, folded by the rules of either language."""
    return {bare(word) for language in LANGUAGES for word in _WORD.findall(fold(answer, language))}


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\S)(?:{pattern})(?!\S)")


def _found(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None
