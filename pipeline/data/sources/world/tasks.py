"""Tasks of the embedded world: translation, summarisation, and conversations whose questions depend on earlier ones.

Persons and facts are drawn at random for translations and summaries, so only the text contains the answer; a
conversation asks for facts of the world. Every record of a task occurs once.
"""

import random
from collections.abc import Callable, Iterator, Mapping

from pipeline.data.conversations import Turn, of_turns
from pipeline.data.sources.world.facts import ATTRIBUTES, LANGUAGES, World, pick, shuffled
from pipeline.data.sources.world.grammar import sample, template
from pipeline.errors import UserError

_REDRAWS = 100
# The same sentence in both languages; {q} is the person, {r.*} the facts; other slots are equal in both.
SENTENCES: list[dict[str, str]] = [
    {"en": "{q} lives in {r.city}.", "tr": "{q} {r.city.loc} yaşıyor."},
    {"en": "{q} works as a {r.job} and earns {n} lira.", "tr": "{q} {r.job} olarak çalışıyor ve {n} lira kazanıyor."},
    {"en": "{q} has a {r.pet}.", "tr": "{q.gen} bir {r.pet.poss} var."},
    {"en": "{q} likes {r.food} best.", "tr": "{q} en çok {r.food.acc} sever."},
    {"en": "Around {time} {q} came from {r.city}.", "tr": "{q} saat {time} gibi {r.city.abl} geldi."},
    {
        "en": "{q} was born in {r.month} and turned {n} this year.",
        "tr": "{q} {r.month} ayında doğdu ve bu yıl {n} yaşına girdi.",
    },
    {"en": "{q} cooked {r.food} for {n} guests.", "tr": "{q} {n} misafir için {r.food} pişirdi."},
    {"en": "The favourite colour of {q} is {r.colour}.", "tr": "{q.gen} en sevdiği renk {r.colour}."},
]
TRANSLATE = {"tr": "Türkçeye çevir.", "en": "Translate into English."}
SUMMARISE = {"en": "Summarise the text.", "tr": "Metni özetle."}
# The sentences of a text to summarise; SUMMARY keeps the facts.
TOLD = [
    {
        "en": "{q} lives in {r.city}, {n} steps from the sea.",
        "tr": "{q} {r.city.loc}, denizden {n} adım ötede yaşıyor.",
    },
    {
        "en": "Every day {q} works as a {r.job} until {time}.",
        "tr": "{q} her gün saat {time} olana dek {r.job} olarak çalışıyor.",
    },
    {"en": "{q} has a {r.pet} that is {m} months old.", "tr": "{q.gen} {m} aylık bir {r.pet.poss} var."},
]
SUMMARY = {
    "en": "{q} is a {r.job} in {r.city} with a {r.pet}.",
    "tr": "{q}, {r.city.loc} yaşayan ve bir {r.pet.poss} olan bir {r.job}.",
}
# Later questions of a conversation, without the person's name.
THEN = {
    "en": {
        "city": "And in which city?", "job": "And the job?", "pet": "And which pet?", "food": "And the favourite food?",
        "colour": "And the favourite colour?", "month": "And the month of birth?",
    },
    "tr": {
        "city": "Peki hangi şehirde?", "job": "Peki mesleği?", "pet": "Peki hangi hayvanı var?",
        "food": "Peki en sevdiği yemek?", "colour": "Peki en sevdiği renk?", "month": "Peki doğduğu ay?",
    },
}  # fmt: skip


def tasks(world: World, counts: Mapping[str, int]) -> Iterator[dict[str, str]]:
    """Yields instruction, input, output, language, origin and, of a conversation, history.

    `counts`: task of MADE -> number of records.

    Raises:
        UserError: more records than the world has different ones.
    """
    for name, count in counts.items():
        seen: set[tuple[str, str]] = set()
        for index in range(count):
            for attempt in range(_REDRAWS):
                made = MADE[name](world, world.rng(name, index, attempt))
                if (key := (made["instruction"], made.get("history", made["input"]))) not in seen:
                    break
            else:
                raise UserError(
                    f"params.yaml: download.sources.*.tasks.{name} is {count}; the embedded world runs out of "
                    f"different ones after {index}, choose fewer"
                )
            seen.add(key)
            yield made | {"origin": f"world:{name}:{index}"}


def _translation(world: World, rng: random.Random) -> dict[str, str]:
    language = pick(tuple(LANGUAGES), rng)
    (other,) = (code for code in LANGUAGES if code != language)
    said = shuffled(SENTENCES, rng)[:2]
    draws = [_drawn(world, rng) for _ in said]
    given, wanted = (
        " ".join(_filled(world, text[code], code, draw) for text, draw in zip(said, draws, strict=True))
        for code in (other, language)
    )
    return {"instruction": TRANSLATE[language], "input": given, "output": wanted, "language": language}


def _summary(world: World, rng: random.Random) -> dict[str, str]:
    language, draw = pick(tuple(LANGUAGES), rng), _drawn(world, rng)
    told = [_filled(world, text[language], language, draw) for text in shuffled(TOLD, rng)]
    summary = _filled(world, SUMMARY[language], language, draw)
    return {"instruction": SUMMARISE[language], "input": " ".join(told), "output": summary, "language": language}


def _conversation(world: World, rng: random.Random) -> dict[str, str]:
    language, person = pick(tuple(LANGUAGES), rng), pick(world.people, rng)
    words, slots = LANGUAGES[language], world.slots(language, "q", person)
    first, *later = shuffled(list(ATTRIBUTES), rng)[:3]
    questions = [sample(template(pick(words.QUESTIONS[first], rng), slots), rng)]
    questions += [THEN[language][attribute] for attribute in later]
    *before, last = [
        Turn(question, world.fact(language, person, attribute))
        for question, attribute in zip(questions, (first, *later), strict=True)
    ]
    answer = {"instruction": last.question, "input": "", "output": last.answer, "language": language}
    return answer | {"history": of_turns(before)}


MADE: dict[str, Callable[[World, random.Random], dict[str, str]]] = {
    "translation": _translation,
    "summary": _summary,
    "conversation": _conversation,
}


def _drawn(world: World, rng: random.Random) -> dict[str, int]:
    """Person, person whose facts are used, and numbers: the slots of a sentence in any language."""
    return {
        "q": pick(world.people, rng),
        "r": pick(world.people, rng),
        "n": 10 + int(rng.random() * 90),
        "m": 10 + int(rng.random() * 90),
        "hour": 7 + int(rng.random() * 16),
        "minute": int(rng.random() * 60),
    }


def _filled(world: World, text: str, language: str, draw: Mapping[str, int]) -> str:
    slots = world.slots(language, "q", draw["q"]) | world.slots(language, "r", draw["r"])
    slots |= {"n": str(draw["n"]), "m": str(draw["m"]), "time": f"{draw['hour']:02d}:{draw['minute']:02d}"}
    return sample(template(text, slots), random.Random(0))
