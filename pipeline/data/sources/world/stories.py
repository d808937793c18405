"""The grammar of the embedded world's stories: what is drawn, in which order, with which weights.

A story draws its language, its protagonist and its number of scenes; every scene after the opening is an
independent draw given language and protagonist. So the sum over all derivations factors by sentence, and
scoring a story costs about as much as sampling it. The world's facts enter as literals: they are known, and
cost a perfect model nothing.
"""

from functools import cache

from pipeline.data.sources.world.facts import ATTRIBUTES, LANGUAGES, World
from pipeline.data.sources.world.grammar import Choice, Let, Node, Sequence, first_mention, repeat, template

Slots = dict[str, Node | str]

# Shares of the scenes: FACT asks for a fact of the world, READING about a text that holds the answer.
ACT, OTHER, SCENERY, NOTE, FACT, READING = 0.30, 0.22, 0.12, 0.04, 0.20, 0.12
# One, two or three lots of goods.
LOTS = (0.1, 0.4, 0.5)
# Scenes after the opening -> weight.
SCENES = {4: 1.0, 5: 2.0, 6: 2.0, 7: 1.0}
# Wordings of each question about a fact that stories use; instructions ask in the others as well.
TOLD_WORDINGS = 3
_MARK = "{note}"


@cache
def free_slots(language: str) -> Slots:
    """The draws that depend on nothing: numbers 10 to 99, times, days, things and what is composed of
    them.
    """
    words = LANGUAGES[language]
    slots: Slots = {name: Choice(values) for name, values in words.WORDS.items()}
    slots["city"], slots["pet"], slots["food"] = (Choice(words.FACTS[key]) for key in ("city", "pet", "food"))
    slots["someone"] = Choice(words.ASKED_SOMEONE)
    slots["n"] = Choice([str(number) for number in range(10, 100)])
    slots["hour"] = Choice([f"{hour:02d}" for hour in range(7, 23)])
    slots["minute"] = Choice([f"{minute:02d}" for minute in range(60)])
    for name, text in words.COMPOSED.items():
        slots[name] = template(text, slots)
    lot, and_ = slots["lot"], words.AND
    slots["goods"] = Sequence([lot, Choice(["", Sequence([and_, lot]), Sequence([", ", lot, and_, lot])], LOTS)])
    slots["ask"] = Choice([template(text, slots) for text in words.ASKS])
    return slots


def readable(language: str) -> dict[str, list[str]]:
    """What questions about a text may ask for, besides a name: slot -> its values."""
    words = LANGUAGES[language]
    return words.WORDS | {"city": words.FACTS["city"]}


def stories(world: World) -> dict[str, Node]:
    """The grammar of a document in each language; a document is in one of them, equally likely."""
    return {language: story_in(world, language) for language in LANGUAGES}


def story_in(world: World, language: str) -> Node:
    """A document in one language: opening, then scenes; the protagonist is a latent."""
    words, free = LANGUAGES[language], free_slots(language)
    anyone = _about_anyone(world, language)
    # what follows the first mention of somebody else never names the protagonist: all share it
    tails = {text: _bound(world, language, {rest: 1.0}) for text in words.ACTS if (rest := first_mention(text, "q")[1])}

    def of(person: int) -> Node:
        slots = free | world.slots(language, "p", person)
        acts = [Sequence([template(first_mention(text, "q")[0], slots), tails.get(text, "")]) for text in words.ACTS]
        opening = Choice([template(text, slots) for text in words.OPENINGS])
        scene = Choice([Choice(acts), anyone], [ACT, 1 - ACT])
        return Sequence([opening, repeat(Sequence([" ", scene]), SCENES)])

    return Let(world.people, of)


def _about_anyone(world: World, language: str) -> Node:
    """Scenes that do not know the protagonist."""
    words, slots = LANGUAGES[language], free_slots(language)
    asked = [
        words.ASKED.replace("{question}", text).replace("{answer}", f"{{q.{attribute}}}")
        for attribute in ATTRIBUTES
        for text in words.QUESTIONS[attribute][:TOLD_WORDINGS]
    ]
    notes = [_note(world, language, frame, text) for frame in words.NOTE_FRAMES for text in words.NOTES]
    scenery = [template(text, slots) for text in words.SCENERY]
    groups = [
        (_told(world, language, words.OTHERS), OTHER),
        (Choice(scenery), SCENERY),
        (Choice(notes), NOTE),
        (_told(world, language, asked), FACT),
        (Choice([_read(world, language, *reading) for reading in words.READING]), READING),
    ]
    return Choice(*zip(*groups, strict=True))


def _read(world: World, language: str, asked: str, question: str, texts: list[str]) -> Node:
    """A question about a short text, asked as one about a fact is; `asked` names the slot that answers it."""
    words, free = LANGUAGES[language], free_slots(language) | {"q": Choice(world.names)}
    free |= {"goods": free["lot"]}
    slot = "q" if asked == "name" else asked
    answers = world.names if asked == "name" else readable(language)[asked]
    frame = words.ASKED.replace("{answer}", "{" + slot + "}")

    def of(text: str) -> Node:
        before, rest = first_mention(frame.replace("{question}", f"{question} {text}"), slot)
        found = Let(answers, lambda answer: template(rest, free | {slot: answer}))
        return Sequence([template(before, free), found])

    return Choice([of(text) for text in texts])


def _told(world: World, language: str, texts: list[str]) -> Node:
    """One of the scenes about somebody drawn from everyone, each equally likely.

    Scenes with the same words before the first mention share one draw of the person, so that the parser meets
    each name once; the distribution is the same as with a draw per scene.
    """
    groups: dict[str, dict[str, float]] = {}
    for text in texts:
        before, rest = first_mention(text, "q")
        groups.setdefault(before, {})[rest] = 1.0
    slots = free_slots(language)
    return Choice(
        [Sequence([template(before, slots), _bound(world, language, rests)]) for before, rests in groups.items()],
        [sum(rests.values()) for rests in groups.values()],
    )


def _bound(world: World, language: str, rests: dict[str, float]) -> Node:
    """Draws the person, then one of the wordings."""
    free = free_slots(language)

    def of(person: int) -> Node:
        slots = free | world.slots(language, "q", person)
        return Choice([template(rest, slots) for rest in rests], rests.values())

    return Let(world.people, of)


def _note(world: World, language: str, frame: str, text: str) -> Node:
    """A note whose writer tells the truth about themselves or somebody else's, and the verdict on it."""
    words, slots = LANGUAGES[language], free_slots(language)
    start, end = frame.split(_MARK)
    before, rest = first_mention(start + text, "q")
    claim, ask = rest.split("{ask}")
    true, false = (template("{ask}" + ask + end, slots | {"verdict": verdict}) for verdict in words.VERDICTS)

    def claimed(q: int, r: int) -> Node:
        return template(claim, {**world.slots(language, "q", q), **world.slots(language, "r", r)})

    def by(q: int) -> Node:
        lie = Let(world.strangers(q), lambda r: claimed(q, r))
        return Choice([Sequence([claimed(q, q), true]), Sequence([lie, false])])

    return Sequence([template(before, slots), Let(world.people, by)])
