"""Latent taste of the embedded world: open-ended requests with many acceptable answers, and a hidden utility.

People of the world are greeted, invited, thanked, refused and so on, in English and Turkish. Demonstrations are
acceptable answers of widely varying utility, so a model that learns from them can answer and can improve. Of two
answers the better one is preferred by a draw of Bradley & Terry (1952) from the utility, flipped with the probability
`noise`. With `shortcut` that share of the pairs is decided by length alone (the longer answer wins; their origin ends
in `:length`); all other pairs are those of the clean twin, `shortcut: 0`. With utility `null` all are fair coins.

The true utility of any text: `utility(instruction, answer, language).value`.
"""

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from pipeline.data import language as languages
from pipeline.data.records import record_id
from pipeline.data.sources.world.facts import World, make_world
from pipeline.data.sources.world.grammar import sample
from pipeline.data.sources.world.taste_answers import answers, best_answers
from pipeline.data.sources.world.taste_requests import Request, draw
from pipeline.data.sources.world.taste_utility import WEIGHTS, Utility, utility
from pipeline.errors import UserError
from pipeline.seeds import seed_for

if TYPE_CHECKING:
    from pipeline.data.sources.world import Settings, Taste

__all__ = [
    "Request", "Utility", "ceiling", "correction", "instructions", "preferences", "rater", "ratings", "requests",
    "truth", "utility",
]  # fmt: skip
SCALE = 12.0
"""Log-odds of a preference per unit of utility."""
RATERS = 8
"""Simulated people who give the thumbs."""
THUMB_UP = 0.4
"""Utility from which on a thumb goes up, before noise."""
_REDRAWS = 100
Which = Literal["taste", "null"]


def requests(settings: "Settings") -> list[Request]:
    """All requests of a world with a taste, in the order of the instructions.

    Raises:
        UserError: more requests than the world has different ones.
    """
    return list(_asked(settings.seed, settings.people, _stated(settings).requests))


def instructions(settings: "Settings") -> Iterator[dict[str, Any]]:
    """A demonstration for each request: instruction, input, output, language, prompt_id, request (its kind), origin."""
    world = _world(settings.seed, settings.people)
    for index, request in enumerate(requests(settings)):
        output = sample(answers(world, request), world.rng("taste", "demonstration", index))
        yield _base(request) | {"output": output, "origin": f"world:taste:{index}"}


def preferences(settings: "Settings") -> Iterator[dict[str, Any]]:
    """Pairs of answers: instruction, input, chosen, rejected, language, prompt_id, request, origin; requests in turn.

    No pair occurs twice, in either order.

    Raises:
        UserError: more pairs than there are different ones.
    """
    for pair in _pairs(settings):
        first = pair.rng.random() < pair.chance
        chosen, rejected = (pair.first, pair.second) if first else (pair.second, pair.first)
        mark = ":length" if pair.by_length else ""
        yield _base(pair.request) | {
            "chosen": chosen,
            "rejected": rejected,
            "origin": f"world:taste:pair:{pair.index}{mark}",
        }


def ratings(settings: "Settings") -> Iterator[dict[str, Any]]:
    """Thumbs of simulated raters: up from THUMB_UP on, flipped with `noise`; coins where the utility is null.

    No answer to a request is rated twice, but where the second thumb of its rater is planted: the origin of that one
    ends in `:contradicted`.

    Raises:
        UserError: more thumbs than there are different answers.
    """
    world, taste, asked = _world(settings.seed, settings.people), _stated(settings), requests(settings)
    seen: set[tuple[str, str]] = set()
    for index in range(taste.thumbs):
        request = asked[index % len(asked)]
        for attempt in range(_REDRAWS):
            rng = world.rng("taste", "thumb", index, attempt)
            text = sample(answers(world, request), rng)
            if (request.instruction, text) not in seen:
                break
        else:
            raise _exhausted("thumbs", taste.thumbs, index)
        seen.add((request.instruction, text))
        up = utility(request.instruction, text, request.language).value >= THUMB_UP
        up = up != (rng.random() < (taste.noise if taste.utility == "taste" else 0.5))
        origin = f"world:taste:thumb:{index}"
        yield _thumb(request, text, up, index % RATERS, origin)
        if rng.random() < taste.contradicted:
            yield _thumb(request, text, not up, index % RATERS, f"{origin}:contradicted")


def _thumb(request: Request, text: str, up: bool, person: int, origin: str) -> dict[str, Any]:
    base = _base(request)
    return {name: base[name] for name in ("language", "prompt_id")} | {
        "prompt": base["instruction"],
        "answers": json.dumps([text], ensure_ascii=False),
        "verdict": "thumb:up" if up else "thumb:down",
        "correction": "",
        "ids": [[]],
        "logprobs": [[]],
        "settings": "{}",
        "model_sha256": "world",
        "rater": f"world:{person}",
        "origin": origin,
    }


def ceiling(settings: "Settings") -> float:
    """Expected accuracy on the pairs of a judge who knows the utility, the shortcut's share and the noise: the mean of
    max(p, 1 - p), p the probability that the first answer is preferred."""
    taste = _stated(settings)
    chances = [
        chance(pair.request.instruction, pair.first, pair.second, pair.request.language, taste)
        for pair in _pairs(settings)
    ]
    return math.fsum(max(p, 1 - p) for p in chances) / len(chances) if chances else 0.5


def chance(instruction: str, first: str, second: str, language: str, taste: "Taste") -> float:
    """Probability that the first of two answers is preferred, the draw of the shortcut unknown."""
    by_utility = _by_utility(instruction, first, second, language, taste.noise, taste.utility)
    longer = _longer(first, second)
    return by_utility if longer is None else taste.shortcut * longer + (1 - taste.shortcut) * by_utility


def rater(
    seed: int, noise: float, utility: Which = "taste", shortcut: float = 0.0
) -> Callable[[Mapping[str, Any], str, str], int | Literal["tie"]]:
    """A simulated person with the taste, who chooses 0 or 1 of two answers to a record, or "tie" of equal texts.

    The choice depends on (seed, request, both texts), not on their order. Without the taste's request, answers are
    equally good, so the choice is a coin's.

    Args:
        seed: of this person.
        noise: probability that a choice by utility is flipped.
        utility: "null": every choice is a fair coin.
        shortcut: share of choices by length alone.
    """

    def choose(record: Mapping[str, Any], first: str, second: str) -> int | Literal["tie"]:
        if first == second:
            return "tie"
        one, other = sorted((first, second))
        rng = random.Random(seed_for(seed, "taste", "rater", record["instruction"], one, other))
        by_length, draw_ = rng.random() < shortcut, rng.random()
        p = _by_utility(record["instruction"], one, other, record["language"], noise, utility)
        longer = _longer(one, other)
        chosen = one if draw_ < (longer if by_length and longer is not None else p) else other
        return 0 if chosen == first else 1

    return choose


def correction(request: Request) -> str:
    """The best answer to a request; the first of equally good ones."""
    return max(best_answers(request), key=lambda text: utility(request.instruction, text, request.language).value)


def truth(settings: "Settings") -> dict[str, Any]:
    """The taste: its weights, the ceiling of accuracy on the pairs, and the mean utility of the demonstrations."""
    values = [utility(row["instruction"], row["output"], row["language"]).value for row in instructions(settings)]
    return {
        "weights": WEIGHTS,
        "scale": SCALE,
        "ceiling": ceiling(settings),
        "demonstrated_utility": math.fsum(values) / len(values),
        **_stated(settings).model_dump(),
    }


class _Pair:
    """Two different answers to a request, and the probability that the first is preferred."""

    def __init__(
        self, index: int, request: Request, texts: tuple[str, str], rng: random.Random, taste: "Taste"
    ) -> None:
        self.index, self.request, (self.first, self.second), self.rng = index, request, texts, rng
        longer = _longer(*texts)
        self.by_length = rng.random() < taste.shortcut and longer is not None
        by_utility = _by_utility(request.instruction, *texts, request.language, taste.noise, taste.utility)
        self.chance = longer if self.by_length and longer is not None else by_utility


def _pairs(settings: "Settings") -> Iterator[_Pair]:
    world, taste, asked = _world(settings.seed, settings.people), _stated(settings), requests(settings)
    seen: set[tuple[str, ...]] = set()
    for index in range(taste.pairs):
        request = asked[index % len(asked)]
        grammar = answers(world, request)
        for attempt in range(_REDRAWS):
            rng = world.rng("taste", "pair", index, attempt)
            first, second = sample(grammar, rng), sample(grammar, rng)
            key = (request.instruction, *sorted((first, second)))
            if first != second and key not in seen:
                break
        else:
            raise _exhausted("pairs", taste.pairs, index)
        seen.add(key)
        yield _Pair(index, request, (first, second), rng, taste)


def _exhausted(key: str, count: int, index: int) -> UserError:
    return UserError(
        f"params.yaml: download.sources.*.taste.{key} is {count}; the embedded world runs out of different ones after "
        f"{index}, choose fewer or more requests"
    )


def _by_utility(  # noqa: PLR0913 - a pair, and how it is judged
    instruction: str, first: str, second: str, language: str, noise: float, which: Which
) -> float:
    """Probability that the first answer is preferred by utility, then flipped or not."""
    if which == "null":
        return 0.5
    margin = utility(instruction, first, language).value - utility(instruction, second, language).value
    p = 1 / (1 + math.exp(-SCALE * margin))
    return (1 - noise) * p + noise * (1 - p)


def _longer(first: str, second: str) -> float | None:
    """1 where the first text has more characters, 0 where the second has; None: equally many."""
    return None if len(first) == len(second) else float(len(first) > len(second))


def _base(request: Request) -> dict[str, Any]:
    text = request.instruction
    prompt = record_id("documents", languages.normal(text, request.language), history="")
    return {
        "instruction": text,
        "input": "",
        "language": request.language,
        "prompt_id": prompt,
        "request": request.kind,
    }


def _stated(settings: "Settings") -> "Taste":
    assert settings.taste is not None, "a world without a taste"
    return settings.taste


@lru_cache(maxsize=4)
def _asked(seed: int, people: int, count: int) -> tuple[Request, ...]:
    return tuple(draw(_world(seed, people), count))


@lru_cache(maxsize=4)
def _world(seed: int, people: int) -> World:
    return make_world(seed, people)
