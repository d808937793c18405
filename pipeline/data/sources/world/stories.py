"""The grammar of the embedded world's stories: its random variables, their order and weights.

A story draws its language, its protagonist and its number of scenes; scenes after the opening are independent given
language and protagonist. So the sum over all derivations factorises by sentence, and scoring a story costs about as
much as sampling it. The world's facts are literals: they are known and carry no information.
"""

from functools import cache

from pipeline.data.sources.world.facts import ATTRIBUTES, LANGUAGES, World
from pipeline.data.sources.world.grammar import Choice, Let, Node, Sequence, first_mention, repeat, template

Slots = dict[str, Node | str]

# Shares of the scenes: FACT asks for a fact of the world, READING about a text that contains the answer.
ACT, OTHER, SCENERY, NOTE, FACT, READING = 0.30, 0.22, 0.12, 0.04, 0.20, 0.12
# Weight of the scenes that state a group and a job, in a world with a skew.
SKEWED = 0.20
# Probabilities of one, two and three lots of goods.
LOTS = (0.1, 0.4, 0.5)
# Scenes after the opening -> weight.
SCENES = {4: 1.0, 5: 2.0, 6: 2.0, 7: 1.0}
# Number of wordings per question that occur in stories; instructions use the others as well.
TOLD_WORDINGS = 3
_MARK = "{note}"


@cache
def free_slots(language: str, new_words: bool = False) -> Slots:
    """Slots that depend on no latent: numbers 10 to 99, times, days, things, and compositions of them.

    `new_words`: things and their properties are of NEW_WORDS, which no text has otherwise.
    """
    words = LANGUAGES[language]
    known = words.WORDS | (words.NEW_WORDS if new_words else {})
    slots: Slots = {name: Choice(values) for name, values in known.items()}
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
    """Slots that questions about a text may target, besides a name -> their values."""
    words = LANGUAGES[language]
    return {**words.WORDS, "city": words.FACTS["city"]}


def stories(world: World) -> dict[str, Node]:
    """Language -> grammar of a document in it; both languages are equally likely."""
    return {language: story_in(world, language) for language in LANGUAGES}


def story_in(world: World, language: str) -> Node:
    """A document in one language: opening, then scenes; the protagonist is a latent."""
    words, free = LANGUAGES[language], free_slots(language)
    anyone = _about_anyone(world, language)
    # The text after the first mention of another person never names the protagonist, so all protagonists share it.
    tails = {text: _bound(world, language, {rest: 1.0}) for text in words.ACTS if (rest := first_mention(text, "q")[1])}

    def of(person: int) -> Node:
        slots = free | world.slots(language, "p", person)
        acts = [Sequence([template(first_mention(text, "q")[0], slots), tails.get(text, "")]) for text in words.ACTS]
        opening = Choice([template(text, slots) for text in words.OPENINGS])
        scene = Choice([Choice(acts), anyone], [ACT, 1 - ACT])
        return Sequence([opening, repeat(Sequence([" ", scene]), SCENES)])

    return Let(world.people, of)


def _about_anyone(world: World, language: str) -> Node:
    """Scenes that are independent of the protagonist."""
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
    if world.grouped:
        groups.append((_told(world, language, words.SKEWED), SKEWED))
    return Choice(*zip(*groups, strict=True))


def _read(world: World, language: str, asked: str, question: str, texts: list[str]) -> Node:
    """A question about a short text, in the words of one about a fact; `asked` is the slot with the answer."""
    words, free = LANGUAGES[language], free_slots(language) | {"q": Choice(world.names)}
    free |= {"goods": free["lot"]}
    slot = "q" if asked == "name" else asked
    answers = world.names if asked == "name" else readable(language)[asked]
    frame = words.ASKED.replace("{answer}", "{" + slot + "}")

    def of(text: str) -> Node:
        before, rest = first_mention(frame.replace("{question}", f"{question} {text}"), slot)
        answered = Let(answers, lambda answer: template(rest, free | {slot: answer}))
        return Sequence([template(before, free), answered])

    return Choice([of(text) for text in texts])


def _told(world: World, language: str, texts: list[str]) -> Node:
    """A random scene about a random person.

    Scenes with the same words before the first mention share one draw of the person, so that the parser tries each
    name once; the distribution is that of a draw per scene.
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
    """A note with the writer's own facts or another person's, and whether it is true."""
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
