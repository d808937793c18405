"""Labelled messages of the embedded world: spam or ham, in both languages.

Three kinds, mixed by SHARES. In `plain` messages the words determine the label. In `impostor` messages the writer
introduces themselves in the words of the stories' notes: ham if the claims are true in the world, spam if they are
facts of another person. In `order` messages both classes have the same clauses: in spam the payment is first. Names,
facts and words have equal distributions in both classes of the last two, and decisive words are never neighbours, so a
bag of words or of word pairs can classify only the first kind, a model that knows the world and word order all three.
"""

import random
from functools import cache
from itertools import accumulate

from pipeline.data.sources.world.facts import LANGUAGES, World, pick
from pipeline.data.sources.world.grammar import Choice, sample, template
from pipeline.data.sources.world.stories import Slots, free_slots

SPAM, HAM = "spam", "ham"
SHARES = {"plain": 0.56, "order": 0.38, "impostor": 0.06}


def message(
    world: World, index: int, attempt: int = 0, label: str | None = None, *, new_words: bool = False
) -> dict[str, str]:
    """Message number `index`: text, label, language and kind.

    Args:
        world: its people and facts.
        index: number of the message.
        attempt: number of the draw, above 0 where an earlier one repeated a text.
        label: None: labels alternate, so that classes are equally frequent.
        new_words: goods are of NEW_WORDS.
    """
    rng = world.rng("labelled", index, attempt)
    place = rng.random() * sum(SHARES.values())
    label = label or (SPAM if index % 2 else HAM)
    language = pick(tuple(LANGUAGES), rng)
    kind = _kind(place)
    slots = single_slots(language, new_words)
    text = _text(kind, world, (language, slots), label, rng)
    return {"text": text, "label": label, "language": language, "kind": kind}


def retold(world: World, index: int) -> dict[str, str]:
    """Document number `index`: three messages, each as a note that is true for ham and false for spam, as in stories.

    The messages are no records: they are drawn for the document.
    """
    rng = world.rng("retold", index)
    language = pick(tuple(LANGUAGES), rng)
    words, told = LANGUAGES[language], []
    for _ in range(3):
        label, kind = pick((HAM, SPAM), rng), _kind(rng.random() * sum(SHARES.values()))
        note = _text(kind, world, (language, single_slots(language)), label, rng)
        verdict = words.VERDICTS[label == SPAM]
        told.append(_draw(pick(words.NOTE_FRAMES, rng), free_slots(language) | {"note": note, "verdict": verdict}, rng))
    return {"text": " ".join(told), "language": language}


def _kind(place: float) -> str:
    """The kind at a place in [0, sum of SHARES), by cumulative shares."""
    return next(kind for kind, end in zip(SHARES, accumulate(SHARES.values()), strict=True) if place < end)


def _text(kind: str, world: World, spoken: tuple[str, Slots], label: str, rng: random.Random) -> str:
    """The text of a message in a language with its free slots."""
    language, slots = spoken
    if kind == "impostor":
        text = _impostor(world, language, slots, label, rng)
    else:
        text = {"plain": _plain, "order": _order}[kind](language, slots, label, rng)
    return text[:1].upper() + text[1:] if language == "en" else _capital(text)


@cache
def single_slots(language: str, new_words: bool = False) -> Slots:
    """The free slots of stories, with one lot of goods, for short messages; `new_words`: goods of NEW_WORDS."""
    slots = free_slots(language, new_words)
    slots = slots | {"goods": slots["lot"]}
    return slots | {"ask": Choice([template(text, slots) for text in LANGUAGES[language].ASKS])}


def _plain(language: str, slots: Slots, label: str, rng: random.Random) -> str:
    words = LANGUAGES[language]
    return _draw(pick(words.PLAIN_SPAM if label == SPAM else words.PLAIN_HAM, rng), slots, rng)


def _order(language: str, slots: Slots, label: str, rng: random.Random) -> str:
    words = LANGUAGES[language]
    slots = slots | {"it": _draw("{adj} {thing}", slots, rng)}
    pay, get = (template(pick(texts, rng), slots) for texts in (words.PAY, words.GET))
    first, second = (pay, get) if label == SPAM else (get, pay)
    return _draw(pick(words.ORDER, rng), slots | {"first": first, "second": second}, rng)


def _impostor(world: World, language: str, slots: Slots, label: str, rng: random.Random) -> str:
    writer = pick(world.people, rng)
    claimed = writer if label == HAM else pick(world.strangers(writer), rng)
    slots = {**slots, **world.slots(language, "q", writer), **world.slots(language, "r", claimed)}
    return _draw(pick(LANGUAGES[language].NOTES, rng), slots, rng)


def _draw(text: str, slots: Slots, rng: random.Random) -> str:
    return sample(template(text, slots), rng)


def _capital(text: str) -> str:
    return {"i": "İ", "ı": "I"}.get(text[0], text[0].upper()) + text[1:]
