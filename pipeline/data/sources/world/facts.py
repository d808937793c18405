"""Who lives in the embedded world and what is true of them.

People are drawn from a fixed pool of names of both cultures; each has one city, job, pet, favourite food,
favourite colour and birth month. Every value is held by equally many people (the first ones by one more where
it does not come out even), so no fact is likelier than another and a bag of words learns nothing from it.
"""

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from types import ModuleType

from pipeline.config.recipe import seed_for
from pipeline.data.sources.world import english as english
from pipeline.data.sources.world import turkish as turkish
from pipeline.errors import UserError

LANGUAGES: dict[str, ModuleType] = {"en": english, "tr": turkish}
ATTRIBUTES = ("city", "job", "pet", "food", "colour", "month")
# A lie differs from the truth in all of these, so that every claim of a false note is false.
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


@dataclass(frozen=True, eq=False)
class World:
    """The people by name and their facts: `facts[person][attribute]` is an index into a language's FACTS."""

    names: tuple[str, ...]
    facts: tuple[dict[str, int], ...]
    seed: int
    _slots: dict[tuple[str, str, int], dict[str, str]] = field(default_factory=dict)

    @property
    def people(self) -> range:
        """Everyone, as indices."""
        return range(len(self.names))

    def fact(self, language: str, person: int, attribute: str) -> str:
        """A true fact in the words of a language."""
        return str(LANGUAGES[language].FACTS[attribute][self.facts[person][attribute]])

    def strangers(self, person: int) -> list[int]:
        """Everyone who shares none of the CLAIMED facts with a person: whose facts are lies about that
        person.
        """
        own = self.facts[person]
        return [other for other in self.people if all(self.facts[other][key] != own[key] for key in CLAIMED)]

    def slots(self, language: str, prefix: str, person: int) -> dict[str, str]:
        """`{q}`, `{q.job}`, and the case forms of the language (`{q.gen}`, `{q.city.loc}`) for one person."""
        key = (language, prefix, person)
        if key in self._slots:
            return self._slots[key]
        suffixes = LANGUAGES[language].suffixes
        found = _named(prefix, suffixes(self.names[person]))
        for attribute in ATTRIBUTES:
            found |= _named(f"{prefix}.{attribute}", suffixes(self.fact(language, person, attribute)))
        self._slots[key] = found
        return found

    def rng(self, *purpose: str | int) -> random.Random:
        """The generator of one purpose, so that changing one thing moves nothing else."""
        return random.Random(seed_for(self.seed, "world", *purpose))

    def fact_bits(self) -> dict[str, float]:
        """Bits that tell the fact table: log2 of the ways to draw the names, and to deal each attribute's
        values.
        """
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


def make_world(seed: int, people: int) -> World:
    """Draws the people and deals the facts.

    Raises:
        UserError: fewer people than a lie needs, or more than there are names.
    """
    if not FEWEST_PEOPLE <= people <= len(NAMES):
        raise UserError(
            f"params.yaml: download.sources.*.people is {people}; the embedded world holds {FEWEST_PEOPLE} "
            f"to {len(NAMES)} people, choose a number within"
        )
    rng = random.Random(seed_for(seed, "world", "people"))
    names = tuple(shuffled(list(NAMES), rng)[:people])
    facts: list[dict[str, int]] = [{} for _ in names]
    for attribute in ATTRIBUTES:
        size = len(english.FACTS[attribute])
        for person, value in enumerate(shuffled([index % size for index in range(people)], rng)):
            facts[person][attribute] = value
    return World(names, tuple(facts), seed)


def shuffled(values: list, rng: random.Random) -> list:  # type: ignore[type-arg]
    """A shuffled copy, drawn with `rng.random()` alone: the one method whose stream Python keeps across
    versions.
    """
    keys = [rng.random() for _ in values]
    return [values[index] for index in sorted(range(len(values)), key=keys.__getitem__)]


def pick(values, rng: random.Random):  # type: ignore[no-untyped-def]
    """One of a sequence, drawn with `rng.random()` alone."""
    return values[int(rng.random() * len(values))]


def _named(prefix: str, forms: dict[str, str]) -> dict[str, str]:
    return {f"{prefix}.{case}" if case else prefix: form for case, form in forms.items()}
