"""The embedded source: a seeded world whose truth is known, so that every gate and evaluation has an answer.

It writes stories (documents), spam and ham messages (labelled), instructions with answers, and preferences,
in English and Turkish. Each document carries the bits a perfect model would need for it, -log2 p(text |
world) summed over all derivations; the facts of the world count as known (`truth` gives their own bits
beside). Nothing is planted unless `planted` names it: with an empty list the same seed gives the clean twin,
equal in every record but the planted ones.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, Literal, Protocol

import pyarrow as pa

from pipeline.config.recipe import KINDS, Kind
from pipeline.config.section import Count, Section, Share
from pipeline.data.records import CONTENT, record_id
from pipeline.data.sources.world import planted as planted
from pipeline.data.sources.world.facts import World, make_world
from pipeline.data.sources.world.grammar import Choice, Node, log2p
from pipeline.data.sources.world.instructions import instructions, preferences
from pipeline.data.sources.world.messages import HAM, SHARES, SPAM, message, retold
from pipeline.data.sources.world.stories import stories
from pipeline.data.sources.world.tasks import tasks
from pipeline.errors import UserError

REVISION = "1"
CONVENTION = (
    "bits of a document = -log2 p(text | world), summed over all derivations; its language, protagonist and "
    "length are part of it; the world's facts are known and cost nothing, their own bits are fact_bits; "
    "planted documents have no bits"
)
_ROWS = 2000
_REDRAWS = 100


class Noise(Section):
    """Messages as somebody found them: some labels are wrong, and all are for training."""

    first: Count
    """Number of the first message: two entries of one world share none if their ranges do not meet."""
    wrong_share: Share
    """Of the labels; the records whose label is wrong say so in their `origin`."""


class Tasks(Section):
    """More instructions, of kinds that need more than a word in answer."""

    translation: Count
    """Two sentences, from either language into the other."""
    summary: Count
    """Three sentences about somebody, in one."""
    conversation: Count
    """Three questions about a person, of whom the later ones do not say the name."""


class Settings(Section):
    """Sizes of the world. Raising documents or labelled keeps every record that was there."""

    seed: int
    people: int
    """16 to 72; each has one city, job, pet, favourite food, favourite colour and birth month."""
    documents: Count
    labelled: Count
    instructions: Count
    preferences: Count
    planted: list[
        Literal[
            "personal_email",
            "personal_phone",
            "personal_card",
            "personal_iban",
            "personal_identity",
            "duplicates",
            "mojibake",
            "wrong_language",
            "too_short",
            "too_long",
            "label_imbalance",
            "wrong_labels",
            "special_token_text",
            "incompressible",
            "near_duplicates",
            "leaks",
            "canaries",
            "canary_answers",
            "associations",
        ]
    ]
    """Kinds of trouble to plant; empty: the clean twin."""
    noise: Noise | None
    """Null: every label is right and the split is the hash's."""
    retold: Count
    """More documents, each telling of three messages and their verdicts: text in which a model can read what the
    labels are about. They have no bits."""
    tasks: Tasks | None
    """Null: none."""


class RowLog(Protocol):
    """What `read` needs of the collector's account."""

    def accept(self, kind: Kind, n: int = 1) -> None:
        """The reader hands on `n` rows of this kind."""


@dataclass
class Figures:
    """What the clean documents of one world add up to."""

    documents: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    bits: dict[str, float] = field(default_factory=dict)

    def add(self, language: str, size: int, bits: float) -> None:
        """Counts one document."""
        self.documents[language] += 1
        self.bytes[language] += size
        self.bits[language] = self.bits.get(language, 0.0) + bits


@dataclass(frozen=True)
class _Made:
    """One world, made once per process, because the collector asks for `truth` after `read`."""

    world: World
    stories: dict[str, Node]
    """The grammar of documents in one language."""
    story: Node
    """Any document: the language is a latent."""
    figures: dict[int, Figures] = field(default_factory=dict)
    """Number of documents -> their sums, filled once all were made."""


def read(settings: Settings, entry: str, log: RowLog) -> Iterator[tuple[Kind, pa.Table]]:
    """Yields tables of at most 2,000 rows: the kind's content, language, split, origin, and for documents
    bits.

    Raises: UserError: a number of people the world cannot hold, or more records than it can tell apart.
    """
    plants = _plants(settings)
    records: dict[Kind, Iterator[dict[str, Any]]] = {
        "documents": chain(_documents(settings), _retold(settings)),
        "labelled": _labelled(settings),
        "instructions": chain(
            instructions(_made(settings).world, settings.instructions),
            tasks(_made(settings).world, settings.tasks.model_dump() if settings.tasks else {}),
        ),
        "preferences": preferences(_made(settings).world, settings.preferences),
    }
    for kind in KINDS:
        for rows in _batches(_with_plants(kind, records[kind], plants)):
            log.accept(kind, len(rows))
            yield kind, _table(kind, rows)


def truth(settings: Settings) -> dict[str, Any]:
    """Everything the generator knows: conventions, facts, entropy figures, and the exact list of what was
    planted.
    """
    made = _made(settings)
    if settings.documents not in made.figures:
        for _ in _documents(settings):
            pass
    figures = made.figures[settings.documents]
    total = {
        "documents": figures.documents.total(),
        "bytes": figures.bytes.total(),
        "bits": sum(figures.bits[language] for language in sorted(figures.bits)),
    }
    by_language = {
        language: {
            "documents": figures.documents[language],
            "bytes": figures.bytes[language],
            "bits": figures.bits[language],
        }
        for language in sorted(figures.documents)
    }
    return {
        "convention": CONVENTION,
        "entropy": {"all": _rated(total), **{language: _rated(of) for language, of in by_language.items()}},
        "facts": made.world.table(),
        "fact_bits": made.world.fact_bits(),
        "message_kinds": SHARES,
        "planted": _listed(settings),
    }


def provenance(settings: Settings) -> dict[str, Any]:
    """Where the text comes from: this generator; sha256 is that of its revision and settings."""
    name = f"{REVISION}\0{settings.model_dump_json()}"
    return {"address": "embedded", "sha256": hashlib.sha256(name.encode()).hexdigest(), "revision": REVISION}


def _made(settings: Settings) -> _Made:
    return _make(settings.seed, settings.people)


@lru_cache(maxsize=1)
def _make(seed: int, people: int) -> _Made:
    world = make_world(seed, people)
    by_language = stories(world)
    return _Made(world, by_language, Choice(by_language.values()))


def _documents(settings: Settings) -> Iterator[dict[str, Any]]:
    made, figures = _made(settings), Figures()
    for index in range(settings.documents):
        record = planted.clean_document(made.world, made.stories, index)
        text, language = str(record["text"]), str(record["language"])
        bits = -log2p(made.story, text)
        figures.add(language, len(text.encode()), bits)
        yield {**record, "bits": bits}
    made.figures[settings.documents] = figures


def _retold(settings: Settings) -> Iterator[dict[str, Any]]:
    world = _made(settings).world
    for index in range(settings.retold):
        yield {**retold(world, index), "bits": None, "origin": f"world:retold:{index}"}


def _labelled(settings: Settings) -> Iterator[dict[str, Any]]:
    """Messages, each text once: a draw that repeats an earlier one is drawn again."""
    world, seen, noise = _made(settings).world, set[str](), settings.noise
    first = noise.first if noise else 0
    for index in range(first, first + settings.labelled):
        for attempt in range(_REDRAWS):
            record = message(world, index, attempt)
            if record["text"] not in seen:
                break
        else:
            raise UserError(
                f"params.yaml: download.sources.*.labelled is {settings.labelled}; the embedded world runs "
                f"out of different messages after {index}, choose fewer"
            )
        seen.add(record["text"])
        yield {**record, "split": None} if noise is None else _found(world, record, index, noise)


def _found(world: World, record: dict[str, Any], index: int, noise: Noise) -> dict[str, Any]:
    """The message with a label that may be wrong."""
    origin = f"world:labelled:{index}"
    if world.rng("noise", index).random() >= noise.wrong_share:
        return {**record, "split": "train", "origin": origin}
    wrong = HAM if record["label"] == SPAM else SPAM
    return {**record, "label": wrong, "split": "train", "origin": f"{origin}:wrong"}


def _with_plants(
    kind: Kind, records: Iterable[dict[str, Any]], plants: list[planted.Plants]
) -> Iterator[dict[str, Any]]:
    altered = {
        plant.index: plant.fields
        for _, grown in plants
        for plant in grown
        if isinstance(plant, planted.Altered) and plant.kind == kind
    }
    for index, record in enumerate(records):
        yield {"split": None, "origin": f"world:{kind}:{index}", **record, **altered.get(index, {})}
    for name, grown in plants:
        for number, plant in enumerate(grown):
            if isinstance(plant, planted.Added) and plant.kind == kind:
                yield {**plant.record, "bits": None, "origin": f"world:planted:{name}:{number}"}


def _plants(settings: Settings) -> list[planted.Plants]:
    made = _made(settings)
    counts: dict[Kind, int] = {
        "documents": settings.documents,
        "labelled": settings.labelled,
        "instructions": settings.instructions,
        "preferences": settings.preferences,
    }
    return planted.grow(planted.Garden(made.world, made.stories, counts), settings.planted)


def _listed(settings: Settings) -> list[dict[str, Any]]:
    """Every planted record: what was planted, kind of record, its id, what exactly, and which belong
    together.
    """
    plants = _plants(settings)
    messages = list(_labelled(settings)) if any(name == "wrong_labels" for name, _ in plants) else []
    found: list[dict[str, Any]] = []
    for name, grown in plants:
        for number, plant in enumerate(grown):
            if isinstance(plant, planted.Altered):
                origin, record, pair = (
                    f"world:{plant.kind}:{plant.index}",
                    messages[plant.index] | plant.fields,
                    None,
                )
            else:
                origin, record, pair = f"world:planted:{name}:{number}", plant.record, plant.pair
            content = [str(record[column]) for column in CONTENT[plant.kind]]
            found.append(
                {
                    "planted": name,
                    "kind": plant.kind,
                    "id": record_id(plant.kind, *content),
                    "origin": origin,
                    "what": plant.what,
                    "pair": pair,
                }
            )
    return found


def _rated(sums: dict[str, Any]) -> dict[str, Any]:
    return sums | {"bits_per_byte": sums["bits"] / sums["bytes"] if sums["bytes"] else None}


def _batches(records: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for record in records:
        rows.append(record)
        if len(rows) == _ROWS:
            yield rows
            rows = []
    if rows:
        yield rows


def _table(kind: Kind, rows: list[dict[str, Any]]) -> pa.Table:
    names = [*CONTENT[kind], "language", "split", "origin"]
    table = {name: pa.array([row[name] for row in rows], pa.string()) for name in names}
    if kind == "documents":
        table["bits"] = pa.array([row["bits"] for row in rows], pa.float64())
    return pa.table(table)
