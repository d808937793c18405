"""People of the embedded world and their facts.

People are drawn from a fixed pool of names of both cultures; each has one city, job, pet, favourite food, favourite
colour and birth month. Every value belongs to equally many people (the first ones to one more where the numbers do not
divide), so no fact is likelier than another and a bag of words learns nothing from it.

With a skew (`Doses`) each person belongs to one of two groups, and the job depends on the group: JOBS_OF.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from pipeline.data.sources.world import english, turkish
from pipeline.errors import UserError
from pipeline.seeds import seed_for

if TYPE_CHECKING:
    from pipeline.data.sources.world import Skew

LANGUAGES: dict[str, ModuleType] = {"en": english, "tr": turkish}
ATTRIBUTES = ("city", "job", "pet", "food", "colour", "month")
# A lie differs from the truth in all of these attributes, so that every claim of a false note is false.
CLAIMED = ("city", "job", "pet", "food")
FEWEST_PEOPLE = 16
_POOL = (
    "Ayşe Anna Mehmet Oliver Fatma Emma Ali Martin Zeynep Nora Mustafa Oscar Elif Lena Hasan "
    "Victor Emine Clara Hüseyin Robin Çağla Helen Ömer Simon Işıl Sara Şükrü Adam İpek Marta "
    "Yiğit Peter Özge Julia Ümit Tom Şule Ruben Barış Felix Ülkü Hugo Doğan Laura Tuğba Bruno "
    "Çetin Greta Gökçe Edgar Irmak Paula İsmail Otto Burcu Vera İbrahim Max Cem Diana Deniz "
    "Albert Ebru Rosa Kaan Stella Leyla Ivan Selin Mila Orhan Nina"
)
NAMES = tuple(_POOL.split())
# The first group of attribute `sex`; all other names are men's.
_WOMEN = (
    "Ayşe Anna Fatma Emma Zeynep Nora Elif Lena Emine Clara Çağla Helen Işıl Sara İpek Marta Özge Julia Şule Ülkü "
    "Laura Tuğba Greta Gökçe Irmak Paula Burcu Vera Diana Ebru Rosa Stella Leyla Selin Mila Nina"
)
WOMEN = frozenset(_WOMEN.split())
# Half of the jobs (indices into FACTS["job"]) for each group of a skew: arbitrary halves, which no text but the world's
# associates with a group.
JOBS_OF = ((0, 2, 4, 6, 8, 10), (1, 3, 5, 7, 9, 11))
V = TypeVar("V")


@dataclass(frozen=True, eq=False)
class World:
    """Names of the people and their facts: `facts[person][attribute]` is an index into a language's FACTS."""

    names: tuple[str, ...]
    facts: tuple[dict[str, int], ...]
    seed: int
    grouped: str | None = None
    """The attribute of a skew; None: people have no group."""
    groups: tuple[int, ...] = ()
    """Group of each person, 0 or 1; empty without a skew."""
    _slots: dict[tuple[str, str, int], dict[str, str]] = field(default_factory=dict)

    @property
    def people(self) -> range:
        """All people, as indices."""
        return range(len(self.names))

    def fact(self, language: str, person: int, attribute: str) -> str:
        """A true fact in the words of a language."""
        return str(LANGUAGES[language].FACTS[attribute][self.facts[person][attribute]])

    def strangers(self, person: int) -> list[int]:
        """People who share none of the CLAIMED facts with a person, so that their facts are lies about that person."""
        own = self.facts[person]
        return [other for other in self.people if all(self.facts[other][key] != own[key] for key in CLAIMED)]

    def slots(self, language: str, prefix: str, person: int) -> dict[str, str]:
        """Template slots of one person: `{q}`, `{q.job}`, and the language's case forms (`{q.gen}`, `{q.city.loc}`)."""
        key = (language, prefix, person)
        if key in self._slots:
            return self._slots[key]
        suffixes = LANGUAGES[language].suffixes
        slots = named(prefix, suffixes(self.names[person]))
        for attribute in ATTRIBUTES:
            slots |= named(f"{prefix}.{attribute}", suffixes(self.fact(language, person, attribute)))
        if self.grouped:
            group, pronoun = LANGUAGES[language].GROUPS[self.grouped][self.groups[person]]
            slots |= {f"{prefix}.group": group, f"{prefix}.pronoun": pronoun}
        self._slots[key] = slots
        return slots

    def rng(self, *purpose: str | int) -> random.Random:
        """A random generator of its own for each purpose, so that a change in one leaves the others as they are."""
        return random.Random(seed_for(self.seed, "world", *purpose))

    def fact_bits(self) -> dict[str, float]:
        """Information content of the fact table: log2 of the number of ways to draw the names and each attribute."""
        n = len(self.names)
        bits = {"names": math.log2(math.perm(len(NAMES), n))}
        for attribute in ATTRIBUTES:
            held = Counter(facts[attribute] for facts in self.facts)
            bits[attribute] = math.log2(math.factorial(n) // math.prod(map(math.factorial, held.values())))
        return bits

    def table(self) -> dict[str, dict[str, dict[str, str]]]:
        """Every fact in every language: name -> language -> attribute -> value."""
        return {
            name: {language: {key: self.fact(language, person, key) for key in ATTRIBUTES} for language in LANGUAGES}
            for person, name in enumerate(self.names)
        }

    def changed(self, attribute: str) -> "World":
        """The same world with another value of an attribute for every second person (`changed_people`)."""
        facts = [dict(of) for of in self.facts]
        for person in self.changed_people():
            facts[person][attribute] = (facts[person][attribute] + 1) % len(english.FACTS[attribute])
        return replace(self, facts=tuple(facts), _slots={})

    def changed_people(self) -> range:
        """The people whose facts `changed` changes."""
        return range(0, len(self.names), 2)


def make_world(seed: int, people: int, skew: "Skew | None" = None) -> World:
    """Draws the people and deals the facts; a skew changes the jobs alone.

    Raises:
        UserError: fewer people than a lie needs, or more than there are names.
    """
    if not FEWEST_PEOPLE <= people <= len(NAMES):
        raise UserError(
            f"params.yaml: download.sources.*.people is {people}; expected {FEWEST_PEOPLE} to {len(NAMES)}, the people "
            "that the embedded world has names and facts for"
        )
    rng = random.Random(seed_for(seed, "world", "people"))
    names = tuple(shuffled(list(NAMES), rng)[:people])
    facts: list[dict[str, int]] = [{} for _ in names]
    for attribute in ATTRIBUTES:
        size = len(english.FACTS[attribute])
        for person, value in enumerate(shuffled([index % size for index in range(people)], rng)):
            facts[person][attribute] = value
    world = World(names, tuple(facts), seed)
    return world if skew is None else _skewed(world, skew)


def _skewed(world: World, skew: "Skew") -> World:
    """The world with a group for every person, and jobs by group."""
    halves = shuffled([person % 2 for person in world.people], world.rng("skew", skew.attribute))
    groups = [0 if name in WOMEN else 1 for name in world.names] if skew.attribute == "sex" else halves
    facts = [dict(of) for of in world.facts]
    for group, own in enumerate(JOBS_OF):
        members = shuffled([person for person in world.people if groups[person] == group], world.rng("skew", group))
        typical = round(skew.share * len(members))
        for jobs, people in ((own, members[:typical]), (JOBS_OF[1 - group], members[typical:])):
            dealt = shuffled([jobs[place % len(jobs)] for place in range(len(people))], world.rng("skew", group, *jobs))
            for person, job in zip(people, dealt, strict=True):
                facts[person]["job"] = job
    return replace(world, facts=tuple(facts), grouped=skew.attribute, groups=tuple(groups), _slots={})


def shuffled(values: Sequence[V], rng: random.Random) -> list[V]:
    """A shuffled copy, drawn with `rng.random()` only: Python guarantees the same stream across versions."""
    keys = [rng.random() for _ in values]
    return [values[index] for index in sorted(range(len(values)), key=keys.__getitem__)]


def pick(values: Sequence[V], rng: random.Random) -> V:
    """A random element, drawn with `rng.random()` only."""
    return values[int(rng.random() * len(values))]


def named(prefix: str, forms: dict[str, str]) -> dict[str, str]:
    """Template slots of the case forms of a word: `{prefix}` and `{prefix.case}`."""
    return {f"{prefix}.{case}" if case else prefix: form for case, form in forms.items()}
