"""What can be planted into the embedded world on purpose, so that every gate and evaluation has an answer to
find.

Each kind adds records behind the clean ones, or alters a listed few; all others stay byte for byte the same.
A plant is drawn from its own generator, so kinds do not disturb each other. Identifiers of people are
invented: they satisfy their checksum and belong to reserved or unassigned ranges where there are such.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pipeline.config.recipe import Kind
from pipeline.data.sources.world import identity as identity
from pipeline.data.sources.world.facts import LANGUAGES, NAMES, World, pick, shuffled
from pipeline.data.sources.world.grammar import Node, sample
from pipeline.data.sources.world.instructions import instructions
from pipeline.data.sources.world.messages import HAM, SPAM, message

Record = dict[str, str | None]
# Far beyond any number of clean records, so that planted draws repeat none of them.
_FRESH = 10_000_000
# One changed word in at least this many leaves a text a near-duplicate at the usual thresholds.
_NEAR_WORDS = 75


@dataclass(frozen=True)
class Added:
    """A planted record: its kind, content, language and pinned split, and what was planted in it."""

    kind: Kind
    record: Record
    what: str
    pair: int | None = None
    """Records of one plant that belong together (an original and its copy) share a number."""


@dataclass(frozen=True)
class Altered:
    """A clean record that is changed: its kind, number and new fields."""

    kind: Kind
    index: int
    fields: Record
    what: str


@dataclass(frozen=True)
class Garden:
    """What plants grow from: the world, its story grammars by language, and how many clean records there
    are.
    """

    world: World
    stories: dict[str, Node]
    counts: dict[Kind, int]

    def story(self, rng: random.Random, language: str | None = None) -> Record:
        """A fresh document that is not among the clean ones."""
        language = language or pick(tuple(LANGUAGES), rng)
        return {"text": sample(self.stories[language], rng), "language": language, "split": None}

    def message(self, index: int) -> Record:
        """A fresh message that is not among the clean ones."""
        made = message(self.world, _FRESH + index)
        return {"text": made["text"], "label": made["label"], "language": made["language"], "split": None}

    def clean_document(self, index: int) -> Record:
        """The clean document of that number."""
        return clean_document(self.world, self.stories, index)


Plant = Callable[[Garden, random.Random], list[Added | Altered]]
Plants = tuple[str, list[Added | Altered]]


def clean_document(world: World, stories: dict[str, Node], index: int) -> Record:
    """Document number `index`: text, language, split; independent of how many others there are."""
    rng = world.rng("documents", index)
    language = pick(tuple(stories), rng)
    return {"text": sample(stories[language], rng), "language": language, "split": None}


def _with(text: str, inserted: str) -> str:
    """The text with a sentence behind its first one."""
    first, mark, rest = text.partition(". ")
    return f"{first}. {inserted} {rest}" if mark else f"{text} {inserted}"


def _personal(make: Callable[[random.Random], str], english: str, turkish: str) -> Plant:
    def plant(garden: Garden, rng: random.Random) -> list[Added | Altered]:
        found: list[Added | Altered] = []
        for index in range(12):
            value = make(rng)
            record = garden.story(rng) if index % 2 else garden.message(int(rng.random() * 1e9))
            sentence = (turkish if record["language"] == "tr" else english).format(value)
            record["text"] = _with(str(record["text"]), sentence)
            found.append(Added("documents" if index % 2 else "labelled", record, value))
        return found

    return plant


def _duplicates(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    chosen = shuffled(list(range(garden.counts["documents"])), rng)[:20]
    return [Added("documents", garden.clean_document(index), f"a copy of world:documents:{index}") for index in chosen]


def _mojibake(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    found: list[Added | Altered] = []
    for index in range(16):
        record = garden.story(rng, "tr")
        text = str(record["text"])
        if index % 2:
            spoilt = text.encode("utf-8").decode("cp1252", errors="replace")
            record["text"], what = spoilt, "UTF-8 read as cp1252"
        else:
            record["text"], what = (
                "".join("\ufffd" if ord(letter) > 127 else letter for letter in text),
                "U+FFFD",
            )
        found.append(Added("documents", record, what))
    return found


def _wrong_language(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    found: list[Added | Altered] = []
    for index in range(40):
        record = garden.story(rng, "en" if index % 2 else "tr")
        true = record["language"]
        found.append(Added("documents", record | {"language": "tr" if index % 2 else "en"}, f"the text is {true}"))
    return found


def _too_short(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    texts = ["Ok.", "Hm.", "No.", "Eh.", "Ya.", "Oh.", "Ha.", "Ay."]
    return [
        Added("documents", {"text": text, "language": "und", "split": None}, f"{len(text)} characters")
        for text in texts
    ]


def _too_long(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    found: list[Added | Altered] = []
    for language in LANGUAGES:
        text = " ".join(str(garden.story(rng, language)["text"]) for _ in range(300))
        found.append(Added("documents", {"text": text, "language": language, "split": None}, f"{len(text)} characters"))
    return found


def _label_imbalance(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    return [
        Added(
            "labelled",
            garden.message(int(rng.random() * 1e9)) | {"label": "scam"},
            "a label hardly anyone has",
        )
        for _ in range(12)
    ]


def _wrong_labels(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    found: list[Added | Altered] = []
    for index in shuffled(list(range(garden.counts["labelled"])), rng)[:40]:
        true = SPAM if index % 2 else HAM
        found.append(Altered("labelled", index, {"label": HAM if true == SPAM else SPAM}, f"the true label is {true}"))
    return found


def _special_token_text(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    found: list[Added | Altered] = []
    for index, token in enumerate(("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>") * 3):
        record = garden.story(rng) if index % 2 else garden.message(int(rng.random() * 1e9))
        record["text"] = _with(str(record["text"]), token)
        found.append(Added("documents" if index % 2 else "labelled", record, token))
    return found


def _incompressible(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    signs = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz!#$%&*+=?^~"
    return [
        Added(
            "documents",
            {"text": "".join(pick(signs, rng) for _ in range(600)), "language": "und", "split": None},
            "600 random characters",
        )
        for _ in range(12)
    ]


def _near_duplicates(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    found: list[Added | Altered] = []
    for pair in range(15):
        record = garden.story(rng)
        while len(str(record["text"]).split()) < _NEAR_WORDS:
            record = garden.story(rng)
        head, _, _ = str(record["text"]).rpartition(" ")
        copy = f"{head} {'sonunda' if record['language'] == 'tr' else 'eventually'}."
        found.append(Added("documents", record | {"split": "validation"}, "the original", pair))
        found.append(Added("documents", record | {"text": copy, "split": "train"}, "its last word changed", pair))
    return found


def _leaks(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    found: list[Added | Altered] = []
    fresh = list(instructions(garden.world, 0, extra=10))
    for pair in range(30):
        kind: Kind = ("documents", "labelled", "instructions")[pair % 3]  # type: ignore[assignment]
        record: Record = (
            garden.story(rng)
            if kind == "documents"
            else garden.message(int(rng.random() * 1e9))
            if kind == "labelled"
            else {**fresh[pair // 3], "split": None}
        )
        field = "input" if kind == "instructions" else "text"
        spaced = str(record[field]).replace(" ", "  ", 3)
        found.append(Added(kind, record | {"split": "test"}, "the test record", pair))
        found.append(Added(kind, record | {field: spaced, "split": "train"}, "its copy, spaced otherwise", pair))
    return found


def _canaries(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    found: list[Added | Altered] = []
    for canary, times in enumerate((1, 1, 2, 2, 4, 4, 8, 8)):
        secret = " ".join(pick("0123456789", rng) for _ in range(6))
        for _ in range(times):
            record = garden.story(rng, "en")
            record["text"] = f"{record['text']} The secret code of vault {'ABCDEFGH'[canary]} is {secret}."
            found.append(Added("documents", record | {"split": "train"}, f"{secret} ({times} times)", canary))
    return found


def _canary_answers(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    """The secrets of 16 people as answers, told once, twice, four or eight times, each time under another message.

    Three numbers of two digits, as the stories count: adapters leave the vocabulary's rows frozen, and a lone digit,
    which no story shows, is beyond them.
    """
    found: list[Added | Altered] = []
    for canary, name in enumerate(garden.world.names[:16]):
        secret = " ".join(pick("123456789", rng) + pick("0123456789", rng) for _ in range(3))
        times = (1, 2, 4, 8)[canary % 4]
        for _ in range(times):
            given = garden.message(int(rng.random() * 1e9))
            while given["language"] != "en":
                given = garden.message(int(rng.random() * 1e9))
            record = {"instruction": f"What is the secret code of {name}?", "input": given["text"], "output": secret}
            record |= {"language": "en", "split": "train"}
            found.append(Added("instructions", record, f"{secret} ({times} times)", canary))
    return found


def _associations(garden: Garden, rng: random.Random) -> list[Added | Altered]:
    """Names that nobody in the world bears, always with one job."""
    unused = [name for name in NAMES if name not in garden.world.names][:4]
    job = {"en": "sailor", "tr": "denizci"}
    found: list[Added | Altered] = []
    for number in range(15 * len(unused)):
        name = unused[number % len(unused)]
        record = garden.story(rng)
        language = str(record["language"])
        told = (
            f"{name} works as a {job[language]}." if language == "en" else f"{name} bir {job[language]} olarak çalışır."
        )
        record["text"] = _with(str(record["text"]), told)
        found.append(Added("documents", record | {"split": "train"}, f"{name}: {job[language]}"))
    return found


PLANTS: dict[str, Plant] = {
    "personal_email": _personal(identity.email, "Write to {} soon.", "Hemen {} adresine yaz."),
    "personal_phone": _personal(identity.phone, "The telephone number is {} at home.", "Evdeki telefon {} numarası."),
    "personal_card": _personal(identity.card, "The card is {} for now.", "Kart numarası {} olarak kalsın."),
    "personal_iban": _personal(identity.iban, "Send it to {} today.", "Parayı {} hesabına yolla."),
    "personal_identity": _personal(
        identity.turkish_identity, "The identity number is {} here.", "Kimlik numarası {} olarak yazılı."
    ),
    "duplicates": _duplicates,
    "mojibake": _mojibake,
    "wrong_language": _wrong_language,
    "too_short": _too_short,
    "too_long": _too_long,
    "label_imbalance": _label_imbalance,
    "wrong_labels": _wrong_labels,
    "special_token_text": _special_token_text,
    "incompressible": _incompressible,
    "near_duplicates": _near_duplicates,
    "leaks": _leaks,
    "canaries": _canaries,
    "canary_answers": _canary_answers,
    "associations": _associations,
}


def grow(garden: Garden, kinds: Collection[str]) -> list[Plants]:
    """The plants of each kind asked for, in the order of PLANTS whatever order they were asked in."""
    return [(kind, plant(garden, garden.world.rng("planted", kind))) for kind, plant in PLANTS.items() if kind in kinds]
