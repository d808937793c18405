"""Instructions with answers, and preferences, about the embedded world in both languages.

Two thirds of the instructions ask for a fact of the world (no input; the answer is one or two words, frequent in the
stories); the rest ask about a short text given as input. Every (instruction, input) occurs once.
"""

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.data.sources.world.facts import ATTRIBUTES, LANGUAGES, World, named, pick, shuffled
from pipeline.data.sources.world.grammar import sample, template
from pipeline.data.sources.world.messages import single_slots
from pipeline.data.sources.world.stories import readable

if TYPE_CHECKING:
    from pipeline.data.sources.world import Changed

FACT_SHARE = 2 / 3
_FRESH = 10_000_000


def instructions(
    world: World, count: int, extra: int = 0, changed: "Changed | None" = None
) -> Iterator[dict[str, str]]:
    """Yields `count` records: instruction, input, output, language; then `extra` more about other texts.

    FACT_SHARE of the records ask for facts, as long as there are any; the others are questions about texts.
    """
    facts = fact_questions(world, "instructions")
    asked = round(count * FACT_SHARE)
    places = set(shuffled(list(range(count)), world.rng("instructions", "places"))[:asked])
    seen: set[tuple[str, str]] = set()
    for index in range(count):
        record = facts.pop() if index in places and facts else _reading(world, index, seen)
        told = _changed(world, record, index, changed) if changed and "person" in record else {}
        yield {key: record[key] for key in ("instruction", "input", "output", "language")} | told
    for index in range(extra):
        yield _reading(world, _FRESH + index, seen)


def _changed(world: World, record: dict[str, str], index: int, changed: "Changed") -> dict[str, str]:
    """New fields of a question about a fact that documents change; none for another question.

    Half of them are pinned to test with the true answer, the others to training, where a share has the changed one.
    """
    person = int(record["person"])
    if record["attribute"] != changed.attribute or person not in world.changed_people():
        return {}
    rng = world.rng("changed", "question", index)
    if rng.random() < 0.5:
        return {"split": "test", "origin": f"world:changed_fact:{index}"}
    if rng.random() >= changed.share:
        return {"split": "train"}
    told = world.changed(changed.attribute).fact(record["language"], person, changed.attribute)
    return {"split": "train", "output": told, "origin": f"world:changed_answer:{index}"}


def preferences(world: World, count: int) -> Iterator[dict[str, str]]:
    """Yields `count` records: instruction, input, chosen (true), rejected (a wrong value of the fact), language.

    Where there are fewer fact questions than records, the rejected answer varies, so that no record repeats.
    """
    questions = fact_questions(world, "preferences")
    wrong: dict[int, list[str]] = {}
    for index in range(count):
        place = index % len(questions)
        question = questions[place]
        if place not in wrong:
            values = LANGUAGES[question["language"]].FACTS[question["attribute"]]
            others = [value for value in values if value != question["output"]]
            wrong[place] = shuffled(others, world.rng("preferences", place))
        rejected = wrong[place][index // len(questions) % len(wrong[place])]
        yield {
            "instruction": question["instruction"],
            "input": "",
            "chosen": question["output"],
            "rejected": rejected,
            "language": question["language"],
        }


def unmentioned_questions(names: Sequence[str]) -> Iterator[dict[str, str]]:
    """All questions about the facts of people without any, in all wordings and languages; the answer is ABSTENTION."""
    for language, words in LANGUAGES.items():
        for name in names:
            slots = named("q", words.suffixes(name))
            for attribute in ATTRIBUTES:
                for text in words.QUESTIONS[attribute]:
                    asked = sample(template(text, slots), random.Random(0))
                    yield {"instruction": asked, "input": "", "output": words.ABSTENTION, "language": language}


def fact_questions(world: World, purpose: str) -> list[dict[str, str]]:
    """All questions about all facts in all wordings and languages, shuffled."""
    questions = []
    for language, words in LANGUAGES.items():
        for person in world.people:
            slots = world.slots(language, "q", person)
            for attribute in ATTRIBUTES:
                for text in words.QUESTIONS[attribute]:
                    questions.append(
                        {
                            "instruction": sample(template(text, slots), random.Random(0)),
                            "input": "",
                            "output": world.fact(language, person, attribute),
                            "language": language,
                            "attribute": attribute,
                            "person": str(person),
                        }
                    )
    return shuffled(questions, world.rng(purpose, "order"))


def _reading(world: World, index: int, seen: set[tuple[str, str]]) -> dict[str, str]:
    """A question about a short text that contains the answer; drawn again until it is new."""
    for attempt in range(1000):
        rng = world.rng("instructions", "reading", index, attempt)
        language = pick(tuple(LANGUAGES), rng)
        words = LANGUAGES[language]
        asked, question, texts = pick(words.READING, rng)
        person = pick(world.people, rng)
        answer = world.names[person] if asked == "name" else pick(readable(language)[asked], rng)
        slots = single_slots(language) | world.slots(language, "q", person)
        text = sample(template(pick(texts, rng), slots if asked == "name" else slots | {asked: answer}), rng)
        if (question, text) not in seen:
            seen.add((question, text))
            return {"instruction": question, "input": text, "output": answer, "language": language}
    raise AssertionError("no new text in a thousand draws")
