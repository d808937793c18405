"""Labelled messages of the embedded world: spam or ham, in both languages.

Three kinds, mixed by SHARES. In `plain` ones the words give the label away. In `impostor` ones the writer
introduces themselves in the words of the stories' notes: ham if the claims are true in the world, spam if
they are somebody else's. In `order` ones both classes hold the same clauses: spam wants the money before the
goods. Names, facts and words are spread alike over both classes of the last two, and never stand next to each
other, so that a bag of words or of word pairs sees the first kind alone, while a model that knows the world
and word order can see them all.
"""

import random
from functools import cache
from itertools import accumulate

from pipeline.data.sources.world.facts import LANGUAGES, World, pick
from pipeline.data.sources.world.grammar import Choice, Node, sample, template
from pipeline.data.sources.world.stories import Slots, free_slots

SPAM, HAM = "spam", "ham"
SHARES = {"plain": 0.56, "order": 0.38, "impostor": 0.06}


def message(world: World, index: int, attempt: int = 0) -> dict[str, str]:
    """Message number `index`: text, label, language, and the kind it is of; labels alternate, so classes are
    equal.
    """
    rng = world.rng("labelled", index, attempt)
    place = rng.random() * sum(SHARES.values())
    label = SPAM if index % 2 else HAM
    language = pick(tuple(LANGUAGES), rng)
    kind = _kind(place)
    return {"text": _text(kind, world, language, label, rng), "label": label, "language": language, "kind": kind}


def retold(world: World, index: int) -> dict[str, str]:
    """Document number `index`: three messages and what became of each, in the words stories have for a note.

    A note is false if its message is spam. The messages are no records: they are drawn for the document.
    """
    rng = world.rng("retold", index)
    language = pick(tuple(LANGUAGES), rng)
    words, told = LANGUAGES[language], []
    for _ in range(3):
        label, kind = pick((HAM, SPAM), rng), _kind(rng.random() * sum(SHARES.values()))
        note = _text(kind, world, language, label, rng)
        verdict = words.VERDICTS[label == SPAM]
        told.append(_draw(pick(words.NOTE_FRAMES, rng), free_slots(language) | {"note": note, "verdict": verdict}, rng))
    return {"text": " ".join(told), "language": language}


def _kind(place: float) -> str:
    """The kind whose share of a line of all shares covers this place."""
    return next(kind for kind, upto in zip(SHARES, accumulate(SHARES.values()), strict=True) if place < upto)


def _text(kind: str, world: World, language: str, label: str, rng: random.Random) -> str:
    text = {"plain": _plain, "order": _order, "impostor": _impostor}[kind](world, language, label, rng)
    return text[:1].upper() + text[1:] if language == "en" else _capital(text)


@cache
def single_slots(language: str) -> Slots:
    """The stories' free draws with one lot of goods, which keeps a message short."""
    slots = free_slots(language)
    slots = slots | {"goods": slots["lot"]}
    return slots | {"ask": Choice([template(text, slots) for text in LANGUAGES[language].ASKS])}


def _plain(world: World, language: str, label: str, rng: random.Random) -> str:
    words = LANGUAGES[language]
    return _draw(pick(words.PLAIN_SPAM if label == SPAM else words.PLAIN_HAM, rng), single_slots(language), rng)


def _order(world: World, language: str, label: str, rng: random.Random) -> str:
    words, slots = LANGUAGES[language], single_slots(language)
    slots = slots | {"it": _draw("{adj} {thing}", slots, rng)}
    pay, get = (template(pick(texts, rng), slots) for texts in (words.PAY, words.GET))
    first, second = (pay, get) if label == SPAM else (get, pay)
    return _draw(pick(words.ORDER, rng), slots | {"first": first, "second": second}, rng)


def _impostor(world: World, language: str, label: str, rng: random.Random) -> str:
    writer = pick(world.people, rng)
    claimed = writer if label == HAM else pick(world.strangers(writer), rng)
    slots = single_slots(language) | world.slots(language, "q", writer) | world.slots(language, "r", claimed)
    return _draw(pick(LANGUAGES[language].NOTES, rng), slots, rng)


def _draw(text: str, slots: Slots, rng: random.Random) -> str:
    made: Node = template(text, slots)
    return sample(made, rng)


def _capital(text: str) -> str:
    return {"i": "İ", "ı": "I"}.get(text[0], text[0].upper()) + text[1:]
