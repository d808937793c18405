"""Records of the embedded world: tables of all kinds with planted faults, and the ground truth about them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.config.recipe import Kind
from pipeline.data.records import CONTENT, SCHEMAS, record_id
from pipeline.data.sources.world import planted, taste
from pipeline.data.sources.world.dosing import dosed_instructions, listed_doses
from pipeline.data.sources.world.drifting import drifted_instructions, drifted_message
from pipeline.data.sources.world.facts import World, make_world
from pipeline.data.sources.world.grammar import Choice, Node, log2p
from pipeline.data.sources.world.instructions import instructions, preferences
from pipeline.data.sources.world.messages import HAM, SHARES, SPAM, message, retold
from pipeline.data.sources.world.stories import stories
from pipeline.data.sources.world.tasks import tasks
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.data.sources.world import Doses, Noise, Settings

CONVENTION = (
    "bits of a document = -log2 p(text | world), summed over all derivations; its language, protagonist and "
    "length are part of it; the world's facts are known and cost nothing, their own bits are fact_bits; "
    "planted documents have no bits"
)
_ROWS = 2000
_REDRAWS = 100


@dataclass
class Figures:
    """Sums over the clean documents of one world, by language."""

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
    """One world, built once per process, as the collector calls `truth` after `read`."""

    world: World
    stories: dict[str, Node]
    """The grammar of documents in one language."""
    story: Node
    """The grammar of any document: the language is a latent."""
    changed: dict[str, Node]
    """The grammar of the documents that tell changed facts, by language; empty without any."""
    figures: dict[int, Figures] = field(default_factory=dict)
    """Number of documents -> their sums, filled when all have been generated."""


def tables(settings: "Settings", added: Mapping[Kind, tuple[str, ...]]) -> Iterator[tuple[Kind, pa.Table]]:
    """Tables of at most 2,000 rows, kind after kind; see `world.read`, and `world.adds` for the columns `added`.

    Raises:
        UserError: a number of people that the world does not hold, or more different records than it has.
    """
    plants = _plants(settings)
    world = _made(settings).world
    records: dict[Kind, Iterator[dict[str, Any]]] = {
        "documents": chain(documents(settings), _retold(settings)),
        "labelled": _labelled(settings),
        "instructions": chain(
            _instructions(settings),
            tasks(world, settings.tasks.model_dump() if settings.tasks else {}),
            dosed_instructions(world, settings.doses),
            taste.instructions(settings) if settings.taste else (),
        ),
        "preferences": chain(
            preferences(world, settings.preferences), taste.preferences(settings) if settings.taste else ()
        ),
    }
    if settings.taste and settings.taste.thumbs:
        records["ratings"] = taste.ratings(settings)
    for kind, of_kind in records.items():
        for rows in _batches(_with_plants(kind, of_kind, plants)):
            yield kind, _table(kind, rows, added.get(kind, ()))


def truth(settings: "Settings") -> dict[str, Any]:
    """The ground truth; see `world.truth`."""
    made = _made(settings)
    if settings.documents not in made.figures:
        for _ in documents(settings):
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
        "entropy": {"all": _rated(total), **{language: _rated(sums) for language, sums in by_language.items()}},
        "facts": made.world.table(),
        "fact_bits": made.world.fact_bits(),
        "message_kinds": SHARES,
        "planted": _listed(settings),
        **({"doses": listed_doses(made.world, settings.doses)} if settings.doses else {}),
        **({"taste": taste.truth(settings)} if settings.taste else {}),
    }


def _made(settings: "Settings") -> _Made:
    return _make(settings.seed, settings.people, settings.doses)


@lru_cache(maxsize=1)
def _make(seed: int, people: int, doses: "Doses | None") -> _Made:
    world = make_world(seed, people, doses.skew if doses else None)
    by_language = stories(world)
    changed = doses.changed if doses else None
    return _Made(
        world, by_language, Choice(by_language.values()), stories(world.changed(changed.attribute)) if changed else {}
    )


def documents(settings: "Settings") -> Iterator[dict[str, Any]]:
    """The stories: text, language, split, and bits; those that tell changed facts have no bits."""
    made, figures = _made(settings), Figures()
    changed = settings.doses.changed if settings.doses else None
    for index in range(settings.documents):
        if changed and made.world.rng("changed", index).random() < changed.share:
            told = planted.clean_document(made.world, made.changed, index)
            yield {**told, "bits": None, "origin": f"world:changed:{index}"}
            continue
        record = planted.clean_document(made.world, made.stories, index)
        text, language = str(record["text"]), str(record["language"])
        bits = -log2p(made.story, text)
        figures.add(language, len(text.encode()), bits)
        yield {**record, "bits": bits}
    made.figures[settings.documents] = figures


def _retold(settings: "Settings") -> Iterator[dict[str, Any]]:
    world = _made(settings).world
    for index in range(settings.retold):
        yield {**retold(world, index), "bits": None, "origin": f"world:retold:{index}"}


def _instructions(settings: "Settings") -> Iterator[dict[str, str]]:
    world = _made(settings).world
    if settings.drift:
        return drifted_instructions(world, settings.drift, settings.instructions)
    return instructions(world, settings.instructions, changed=settings.doses.changed if settings.doses else None)


def _labelled(settings: "Settings") -> Iterator[dict[str, Any]]:
    """Messages with distinct texts: a repeated text is drawn again."""
    world, seen, noise, drift = _made(settings).world, set[str](), settings.noise, settings.drift
    first = noise.first if noise else drift.first if drift else 0
    for index in range(first, first + settings.labelled):
        for attempt in range(_REDRAWS):
            record = drifted_message(world, drift, index, attempt) if drift else message(world, index, attempt)
            if record["text"] not in seen:
                break
        else:
            raise UserError(
                f"params.yaml: download.sources.*.labelled is {settings.labelled}; expected fewer: the world runs "
                f"out of different messages after {index}"
            )
        seen.add(record["text"])
        yield {**record, "split": None} if noise is None else _noisy(world, record, index, noise)


def _noisy(world: World, record: dict[str, Any], index: int, noise: "Noise") -> dict[str, Any]:
    """The message pinned to training, its label wrong with the probability `noise.wrong_share`."""
    origin = f"world:labelled:{index}"
    if world.rng("noise", index).random() >= noise.wrong_share:
        return {**record, "split": "train", "origin": origin}
    wrong = HAM if record["label"] == SPAM else SPAM
    return {**record, "label": wrong, "split": "train", "origin": f"{origin}:wrong"}


def _with_plants(
    kind: Kind, records: Iterable[dict[str, Any]], plants: list[planted.Planted]
) -> Iterator[dict[str, Any]]:
    altered = {
        plant.index: plant.fields
        for _, planted_records in plants
        for plant in planted_records
        if isinstance(plant, planted.Altered) and plant.kind == kind
    }
    for index, record in enumerate(records):
        yield {"split": None, "origin": f"world:{kind}:{index}", **record, **altered.get(index, {})}
    for name, planted_records in plants:
        for number, plant in enumerate(planted_records):
            if isinstance(plant, planted.Added) and plant.kind == kind:
                yield {**plant.record, "bits": None, "origin": f"world:planted:{name}:{number}"}


def _plants(settings: "Settings") -> list[planted.Planted]:
    made = _made(settings)
    counts: dict[Kind, int] = {
        "documents": settings.documents,
        "labelled": settings.labelled,
        "instructions": settings.instructions,
        "preferences": settings.preferences,
    }
    return planted.plant_records(planted.CleanWorld(made.world, made.stories, counts), settings.planted)


def _listed(settings: "Settings") -> list[dict[str, Any]]:
    """All planted records: kind of fault, record kind, id, origin, description, and number of the pair."""
    plants = _plants(settings)
    messages = list(_labelled(settings)) if any(name == "wrong_labels" for name, _ in plants) else []
    listed: list[dict[str, Any]] = []
    for name, planted_records in plants:
        for number, plant in enumerate(planted_records):
            if isinstance(plant, planted.Altered):
                origin, record, pair = (
                    f"world:{plant.kind}:{plant.index}",
                    messages[plant.index] | plant.fields,
                    None,
                )
            else:
                origin, record, pair = f"world:planted:{name}:{number}", plant.record, plant.pair
            content = [str(record[column]) for column in CONTENT[plant.kind]]
            listed.append(
                {
                    "planted": name,
                    "kind": plant.kind,
                    "id": record_id(plant.kind, *content),
                    "origin": origin,
                    "what": plant.what,
                    "pair": pair,
                }
            )
    return listed


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


def _table(kind: Kind, rows: list[dict[str, Any]], added: Iterable[str]) -> pa.Table:
    """Rows of one kind; `added`: further columns, null where a row has no value."""
    names = [*CONTENT[kind], "language", "split", "origin"]
    table = {name: pa.array([row[name] for row in rows], pa.string()) for name in names}
    table |= {name: pa.array([row.get(name) for row in rows], pa.string()) for name in added}
    if "history" in SCHEMAS[kind].names:
        table["history"] = pa.array([row.get("history") for row in rows], pa.string())
    if kind == "documents":
        table["bits"] = pa.array([row["bits"] for row in rows], pa.float64())
    if kind == "ratings":
        rated = ("ids", "logprobs", "settings", "model_sha256", "rater")
        table |= {name: pa.array([row[name] for row in rows], SCHEMAS[kind].field(name).type) for name in rated}
    return pa.table(table)
