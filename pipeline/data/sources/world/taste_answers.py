"""Demonstrations of the taste: a grammar of many acceptable answers to a request, of widely varying utility.

An answer draws its language (right or wrong), an opener, a core (right, about another person, with another value, or
useless), a filler sentence and a closer, each independently of the others.
"""

import random
from functools import cache

from pipeline.data.sources.world.facts import LANGUAGES, World, shuffled
from pipeline.data.sources.world.grammar import Choice, Node, Sequence
from pipeline.data.sources.world.taste_requests import Request, filled, values_of
from pipeline.data.sources.world.taste_words import (
    CLOSERS,
    INSULT,
    LONG_FILLERS,
    OPENERS,
    PLAIN_OPENERS,
    PLEASE,
    REQUESTS,
    RUDE,
    SHORT_FILLERS,
    USELESS,
    WARM,
)

RIGHT_LANGUAGE = 0.92
CORES = {"right": 0.82, "person": 0.05, "value": 0.05, "useless": 0.08}
"""Probability of each kind of core."""
OPENED = {"polite": 0.40, "plain": 0.12, "none": 0.48}
FILLED = {"none": 0.48, "short": 0.20, "long": 0.32}
CLOSED = {"polite": 0.38, "rude": 0.16, "none": 0.46}
OF_THREE = (0.5, 0.3, 0.2)
"""Probabilities of three wordings."""
OTHERS = 2
"""Other people, and other values, that wrong answers to one request name."""


def answers(world: World, request: Request) -> Node:
    """The grammar of answers to a request."""
    (other,) = (language for language in LANGUAGES if language != request.language)
    return Choice(
        [_in(world, request, request.language), _in(world, request, other)], [RIGHT_LANGUAGE, 1 - RIGHT_LANGUAGE]
    )


def best_answers(request: Request) -> list[str]:
    """Right, polite and short answers, among which are the best."""
    language, texts = request.language, []
    for core in _right(request):
        for opener in _polite_openers(request):
            texts += [f"{opener}{core}. {closer[language]}" for closer in CLOSERS]
    return texts


def _in(world: World, request: Request, language: str) -> Node:
    request = request.in_language(language)
    cores, weights = _cores(world, request)
    opener = Choice(
        ["", Choice(_polite_openers(request), OF_THREE), Choice([twins[language] for twins in PLAIN_OPENERS])],
        [OPENED["none"], OPENED["polite"], OPENED["plain"]],
    )
    return Sequence([opener, Choice(cores, weights), ".", *_ending(language)])


@cache
def _ending(language: str) -> tuple[Node, Node]:
    """Filler sentence and closer of any answer."""
    short, long = (Choice([f" {twins[language]}" for twins in of]) for of in (SHORT_FILLERS, LONG_FILLERS))
    closer = Choice([f" {twins[language]}" for twins in CLOSERS], OF_THREE)
    insult = Choice([f" {INSULT[language].format(rude=word)}" for word in RUDE[language]])
    return (
        Choice(["", short, long], [FILLED["none"], FILLED["short"], FILLED["long"]]),
        Choice(["", closer, insult], [CLOSED["none"], CLOSED["polite"], CLOSED["rude"]]),
    )


def _polite_openers(request: Request) -> list[str]:
    first = PLEASE if REQUESTS[request.kind].demand else WARM
    return [twins[request.language] for twins in (first, *OPENERS)]


def _cores(world: World, request: Request) -> tuple[list[str], list[float]]:
    """Cores and their probabilities."""
    rng = random.Random(f"{request.kind} {request.person} {request.value}")
    people = shuffled([name for name in world.names if name != request.person], rng)[:OTHERS]
    options = values_of(REQUESTS[request.kind].slot)
    values = shuffled([other for other in options if other != request.value], rng)[:OTHERS]
    by_kind = {
        "right": _right(request),
        "person": [text for name in people for text in _right(request, person=name)],
        "value": [text for value in values for text in _right(request, value=value)],
        "useless": [filled(twins[request.language], request) for twins in USELESS],
    }
    return (
        [text for texts in by_kind.values() for text in texts],
        [share for kind, texts in by_kind.items() for share in _shares(CORES[kind], len(texts))],
    )


def _shares(share: float, n: int) -> list[float]:
    """A probability divided among n wordings, three by three as OF_THREE says, if there are so many."""
    return [share * OF_THREE[place % 3] * 3 / n if n % 3 == 0 else share / n for place in range(n)]


def _right(request: Request, person: str | None = None, value: int | None = None) -> list[str]:
    wordings = REQUESTS[request.kind].answers
    return [filled(twins[request.language], request, person, value) for twins in wordings]
