"""Faults planted into the embedded world on purpose, as known positives for every gate and evaluation.

Each kind appends records to the clean ones or alters a few; all others stay byte for byte equal. Every kind draws from
its own random generator, so kinds do not influence each other. Personal identifiers are invented: their check digits
are valid, and they are of reserved or unassigned ranges where such exist.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pipeline.config.recipe import Kind
from pipeline.data.sources.world import identity
from pipeline.data.sources.world.facts import LANGUAGES, NAMES, World, pick, shuffled
from pipeline.data.sources.world.grammar import Node, sample
from pipeline.data.sources.world.instructions import instructions
from pipeline.data.sources.world.messages import HAM, SPAM, message

Record = dict[str, str | None]
# Far beyond any number of clean records, so that planted records repeat none of them.
_FRESH = 10_000_000
# With at least this many words, a text with one changed word is a near duplicate at the usual thresholds.
_NEAR_WORDS = 75


@dataclass(frozen=True)
class Added:
    """An appended record: kind, content with language and pinned split, and a description of the fault."""

    kind: Kind
    record: Record
    what: str
    pair: int | None = None
    """Number shared by records that belong together (an original and its copy)."""


@dataclass(frozen=True)
class Altered:
    """An altered clean record: kind, number, new fields, and a description of the fault."""

    kind: Kind
    index: int
    fields: Record
    what: str


@dataclass(frozen=True)
class CleanWorld:
    """The world before planting: its facts, story grammars by language, and numbers of clean records by kind."""

    world: World
    stories: dict[str, Node]
    counts: dict[Kind, int]

    def story(self, rng: random.Random, language: str | None = None) -> Record:
        """A new document that is not among the clean ones."""
        language = language or pick(tuple(LANGUAGES), rng)
        return {"text": sample(self.stories[language], rng), "language": language, "split": None}

    def message(self, index: int) -> Record:
        """A new message that is not among the clean ones."""
        made = message(self.world, _FRESH + index)
        return {"text": made["text"], "label": made["label"], "language": made["language"], "split": None}

    def clean_document(self, index: int) -> Record:
        """Clean document number `index`."""
        return clean_document(self.world, self.stories, index)


Plant = Callable[[CleanWorld, random.Random], list[Added | Altered]]
Planted = tuple[str, list[Added | Altered]]


def clean_document(world: World, stories: dict[str, Node], index: int) -> Record:
    """Document number `index`: text, language, split; independent of how many others there are."""
    rng = world.rng("documents", index)
    language = pick(tuple(stories), rng)
    return {"text": sample(stories[language], rng), "language": language, "split": None}


def _with(text: str, inserted: str) -> str:
    """The text with a sentence inserted after its first one."""
    first, mark, rest = text.partition(". ")
    return f"{first}. {inserted} {rest}" if mark else f"{text} {inserted}"


def _personal(make: Callable[[random.Random], str], english: str, turkish: str) -> Plant:
    def plant(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
        records: list[Added | Altered] = []
        for index in range(12):
            value = make(rng)
            record = clean.story(rng) if index % 2 else clean.message(int(rng.random() * 1e9))
            sentence = (turkish if record["language"] == "tr" else english).format(value)
            record["text"] = _with(str(record["text"]), sentence)
            records.append(Added("documents" if index % 2 else "labelled", record, value))
        return records

    return plant


def _duplicates(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    chosen = shuffled(list(range(clean.counts["documents"])), rng)[:20]
    return [Added("documents", clean.clean_document(index), f"a copy of world:documents:{index}") for index in chosen]


def _mojibake(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    records: list[Added | Altered] = []
    for index in range(16):
        record = clean.story(rng, "tr")
        text = str(record["text"])
        if index % 2:
            spoilt = text.encode("utf-8").decode("cp1252", errors="replace")
            record["text"], what = spoilt, "UTF-8 read as cp1252"
        else:
            record["text"], what = (
                "".join("\ufffd" if ord(letter) > 127 else letter for letter in text),
                "U+FFFD",
            )
        records.append(Added("documents", record, what))
    return records


def _wrong_language(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    records: list[Added | Altered] = []
    for index in range(40):
        record = clean.story(rng, "en" if index % 2 else "tr")
        true = record["language"]
        records.append(Added("documents", record | {"language": "tr" if index % 2 else "en"}, f"the text is {true}"))
    return records


def _too_short(_clean: CleanWorld, _rng: random.Random) -> list[Added | Altered]:
    texts = ["Ok.", "Hm.", "No.", "Eh.", "Ya.", "Oh.", "Ha.", "Ay."]
    return [
        Added("documents", {"text": text, "language": "und", "split": None}, f"{len(text)} characters")
        for text in texts
    ]


def _too_long(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    records: list[Added | Altered] = []
    for language in LANGUAGES:
        text = " ".join(str(clean.story(rng, language)["text"]) for _ in range(300))
        records.append(
            Added("documents", {"text": text, "language": language, "split": None}, f"{len(text)} characters")
        )
    return records


def _label_imbalance(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    return [
        Added(
            "labelled",
            clean.message(int(rng.random() * 1e9)) | {"label": "scam"},
            "a label hardly anyone has",
        )
        for _ in range(12)
    ]


def _wrong_labels(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    records: list[Added | Altered] = []
    for index in shuffled(list(range(clean.counts["labelled"])), rng)[:40]:
        true = SPAM if index % 2 else HAM
        records.append(
            Altered("labelled", index, {"label": HAM if true == SPAM else SPAM}, f"the true label is {true}")
        )
    return records


def _special_token_text(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    records: list[Added | Altered] = []
    for index, token in enumerate(("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>") * 3):
        record = clean.story(rng) if index % 2 else clean.message(int(rng.random() * 1e9))
        record["text"] = _with(str(record["text"]), token)
        records.append(Added("documents" if index % 2 else "labelled", record, token))
    return records


def _incompressible(_clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    signs = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz!#$%&*+=?^~"
    return [
        Added(
            "documents",
            {"text": "".join(pick(signs, rng) for _ in range(600)), "language": "und", "split": None},
            "600 random characters",
        )
        for _ in range(12)
    ]


def _near_duplicates(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    records: list[Added | Altered] = []
    for pair in range(15):
        record = clean.story(rng)
        while len(str(record["text"]).split()) < _NEAR_WORDS:
            record = clean.story(rng)
        head, _, _ = str(record["text"]).rpartition(" ")
        copy = f"{head} {'sonunda' if record['language'] == 'tr' else 'eventually'}."
        records.append(Added("documents", record | {"split": "validation"}, "the original", pair))
        records.append(Added("documents", record | {"text": copy, "split": "train"}, "its last word changed", pair))
    return records


def _leaks(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    records: list[Added | Altered] = []
    kinds: tuple[Kind, ...] = ("documents", "labelled", "instructions")
    fresh = list(instructions(clean.world, 0, extra=10))
    for pair in range(30):
        kind = kinds[pair % 3]
        record: Record = (
            clean.story(rng)
            if kind == "documents"
            else clean.message(int(rng.random() * 1e9))
            if kind == "labelled"
            else {**fresh[pair // 3], "split": None}
        )
        field = "input" if kind == "instructions" else "text"
        spaced = str(record[field]).replace(" ", "  ", 3)
        records.append(Added(kind, record | {"split": "test"}, "the test record", pair))
        records.append(Added(kind, record | {field: spaced, "split": "train"}, "its copy, spaced otherwise", pair))
    return records


def _canaries(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    records: list[Added | Altered] = []
    for canary, times in enumerate((1, 1, 2, 2, 4, 4, 8, 8)):
        secret = " ".join(pick("0123456789", rng) for _ in range(6))
        for _ in range(times):
            record = clean.story(rng, "en")
            record["text"] = f"{record['text']} The secret code of vault {'ABCDEFGH'[canary]} is {secret}."
            records.append(Added("documents", record | {"split": "train"}, f"{secret} ({times} times)", canary))
    return records


def _canary_answers(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    """Secrets of 16 people as answers, repeated once, twice, four or eight times, each time with another input.

    A secret is three two-digit numbers, which occur in stories: an adapter leaves the embedding frozen and could not
    learn single digits, which occur in none.
    """
    records: list[Added | Altered] = []
    for canary, name in enumerate(clean.world.names[:16]):
        secret = " ".join(pick("123456789", rng) + pick("0123456789", rng) for _ in range(3))
        times = (1, 2, 4, 8)[canary % 4]
        for _ in range(times):
            given = clean.message(int(rng.random() * 1e9))
            while given["language"] != "en":
                given = clean.message(int(rng.random() * 1e9))
            record = {"instruction": f"What is the secret code of {name}?", "input": given["text"], "output": secret}
            record |= {"language": "en", "split": "train"}
            records.append(Added("instructions", record, f"{secret} ({times} times)", canary))
    return records


def _repeated(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    """Stories told once, twice, four or eight times, each time with another end: near duplicates of some 0.75, which
    deduplication removes where its threshold is lower.
    """
    records: list[Added | Altered] = []
    for story, times in enumerate((1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8)):
        told = clean.story(rng)
        while len(str(told["text"]).split()) < _NEAR_WORDS:
            told = clean.story(rng)
        for _ in range(times):
            end = str(clean.story(rng, told["language"])["text"]).partition(". ")[0].rstrip(".")
            record = told | {"text": f"{told['text']} {end}.", "split": "train"}
            records.append(Added("documents", record, f"told {times} times", story))
    return records


def _contacts(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    """E-mail addresses told once, twice, four or eight times, each time in another story."""
    records: list[Added | Altered] = []
    for person, times in enumerate((1, 1, 2, 2, 4, 4, 8, 8)):
        address = identity.email(rng)
        for _ in range(times):
            record = clean.story(rng)
            told = f"Hemen {address} adresine yaz." if record["language"] == "tr" else f"Write to {address} soon."
            record["text"] = f"{record['text']} {told}"
            records.append(Added("documents", record | {"split": "train"}, f"{address} ({times} times)", person))
    return records


def _withdrawn(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    """Records marked with a withdrawn consent, each with an unmarked copy, spaced otherwise, that has to go with it."""
    records: list[Added | Altered] = []
    for pair in range(12):
        kind: Kind = "documents" if pair % 2 else "labelled"
        record = clean.story(rng) if pair % 2 else clean.message(int(rng.random() * 1e9))
        spaced = str(record["text"]).replace(" ", "  ", 2)
        records.append(Added(kind, record | {"consent": "withdrawn"}, "consent is withdrawn", pair))
        records.append(Added(kind, record | {"text": spaced}, "its copy, spaced otherwise", pair))
    return records


def _associations(clean: CleanWorld, rng: random.Random) -> list[Added | Altered]:
    """Names that occur nowhere else in the world, always with one job."""
    unused = [name for name in NAMES if name not in clean.world.names][:4]
    job = {"en": "sailor", "tr": "denizci"}
    records: list[Added | Altered] = []
    for number in range(15 * len(unused)):
        name = unused[number % len(unused)]
        record = clean.story(rng)
        language = str(record["language"])
        told = (
            f"{name} works as a {job[language]}." if language == "en" else f"{name} bir {job[language]} olarak çalışır."
        )
        record["text"] = _with(str(record["text"]), told)
        records.append(Added("documents", record | {"split": "train"}, f"{name}: {job[language]}"))
    return records


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
    "repeated": _repeated,
    "contacts": _contacts,
    "withdrawn": _withdrawn,
    "associations": _associations,
}


def plant_records(clean: CleanWorld, kinds: Collection[str]) -> list[Planted]:
    """(kind, planted records) of each of `kinds`, in the order of PLANTS."""
    return [(kind, plant(clean, clean.world.rng("planted", kind))) for kind, plant in PLANTS.items() if kind in kinds]
