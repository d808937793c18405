"""Embedded source: a seeded synthetic world with known facts, which give gates and evaluations a ground truth.

It generates stories (documents), spam and ham messages (labelled), instructions with answers, and preferences, in
English and Turkish. Each document carries its information content, -log2 p(text | world) in bits, summed over all
derivations; the facts of the world count as known (`truth` gives their bits apart). Faults are planted only where
`planted` names them: with an empty list the same seed gives the clean twin, equal in every record but the planted ones.
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pipeline.config.recipe import Kind
from pipeline.config.section import Count, Section, Share
from pipeline.data.sources.world.doses import Doses

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.data.ledger import RowLog

REVISION = "1"


class Noise(Section):
    """Label noise: some labels are wrong, and all messages are pinned to training."""

    first: Count
    """Number of the first message; entries of one world with disjoint ranges share no message."""
    wrong_share: Share
    """Share of wrong labels; the `origin` of such a record ends in :wrong."""


class Tasks(Section):
    """Numbers of further instructions, whose answers have more than a word."""

    translation: Count
    """Two sentences to translate, from either language."""
    summary: Count
    """Three sentences about a person to summarise in one."""
    conversation: Count
    """Three questions about a person, whose name only the first contains."""


class Settings(Section):
    """Numbers of records. Larger `documents` or `labelled` keep every earlier record."""

    seed: int
    """Seed of the people, the facts and every record."""
    people: int
    """16 to 72; each has one city, job, pet, favourite food, favourite colour and birth month."""
    documents: Count
    """Number of stories and notes."""
    labelled: Count
    """Number of messages with a label."""
    instructions: Count
    """Number of instructions with an answer."""
    preferences: Count
    """Number of questions with a better and a worse answer."""
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
    """Kinds of faults to plant; empty: the clean twin."""
    noise: Noise | None
    """null: every label is right, and the hash decides the split."""
    retold: Count
    """Further documents, each about three messages and whether they were spam: text from which a model can learn the
    labels' meaning. They have no bits."""
    tasks: Tasks | None
    """null: none."""
    doses: Doses | None
    """Amounts of what makes a model risky, for the measures of risks; null: none."""


def read(settings: Settings, _entry: str, log: "RowLog") -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of at most 2,000 rows: the kind's content, language, split and origin; of documents also bits.

    Raises:
        UserError: a number of people that the world does not hold, or more different records than it has.
    """
    from pipeline.data.sources.world.records import tables

    for kind, table in tables(settings):
        log.accept(kind, len(table))
        yield kind, table


def truth(settings: Settings) -> dict[str, Any]:
    """Ground truth of the generator: conventions, facts, entropy, and the exact list of planted records."""
    from pipeline.data.sources.world import records

    return records.truth(settings)


def provenance(settings: Settings) -> dict[str, Any]:
    """Address, revision of the generator, and SHA-256 of its revision and settings."""
    # without doses as before there were any, so that the data of such a world keeps its hash
    name = f"{REVISION}\0{settings.model_dump_json(exclude=None if settings.doses else {'doses'})}"
    return {"address": "embedded", "sha256": hashlib.sha256(name.encode()).hexdigest(), "revision": REVISION}
