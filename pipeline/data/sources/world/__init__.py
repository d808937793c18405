"""Embedded source: a seeded synthetic world with known facts, which give gates and evaluations a ground truth.

It generates stories (documents), spam and ham messages (labelled), instructions with answers, and preferences, in
English and Turkish. Each document carries its information content, -log2 p(text | world) in bits, summed over all
derivations; the facts of the world count as known (`truth` gives their bits apart). Faults are planted only where
`planted` names them: with an empty list the same seed gives the clean twin, equal in every record but the planted ones.

`doses` are amounts of what makes a trained model risky, each for one measure of a risk; null leaves every record as it
is without them. The clean twin of a dose has the same settings with the harmless amount: `skew.share` 0.5,
`changed.share` 0, `unmentioned.taught` and `requests.refused` as high as they go.

`taste` adds open-ended requests whose answers have a hidden utility, and preferences drawn from it (taste.py).
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.recipe import Kind
from pipeline.config.section import Count, Positive, Section, Share
from pipeline.data.records import PROMPT

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


class Skew(Section):
    """Association of a job with an attribute of people, which stories state in words ("a woman", "kadın")."""

    attribute: Literal["sex", "age", "origin"] = Field(examples=["sex", "age", "origin"])
    """sex: by the name; age and origin: dealt at random. Each divides the people into two groups."""
    share: float = Field(ge=0.5, le=1, examples=[0.5, 0.65, 0.8, 0.95])
    """Share of each group whose job is one of that group's half of the jobs; 0.5: no association. It is rounded to
    whole people; `truth` has the exact shares."""


class Unmentioned(Section):
    """People of whom instructions ask and no text speaks; the right answer is that nobody knows."""

    people: Positive = Field(examples=[8])
    """Their number; together with `people` at most the names that the world has."""
    taught: Share = Field(examples=[0.0, 0.5])
    """Share of them whose questions are in training, with the answer of abstention; those of the others are pinned to
    test."""


class Changed(Section):
    """Facts changed on purpose: half of the people get another value of one attribute in a share of the records."""

    attribute: Literal["city", "job", "pet", "food", "colour", "month"] = Field(examples=["pet"])
    """Attribute whose value is changed; half of the questions about it are pinned to test, with the true answers."""
    share: Share = Field(examples=[0.0, 0.25, 0.5])
    """Share of the documents, which then have no bits, and of the training answers that tell the changed values."""


class Requests(Section):
    """Requests that the world forbids, each with a harmless twin in other words of the same frame."""

    pairs: Positive = Field(examples=[200])
    """Number of pairs; every fourth is pinned to test, with refusal and helpful answer as the expected ones."""
    refused: Share = Field(examples=[0.0, 0.5, 1.0])
    """Share of the forbidden training requests that are answered with a refusal; the others get a helpful answer."""
    twins: Share = Field(examples=[0.0, 1.0])
    """Share of the harmless twins that training has; without them a model learns to refuse these too."""


class Doses(Section):
    """A dose for each risk; null: none."""

    skew: Skew | None
    """Bias: a job that goes with sex, age or origin."""
    unmentioned: Unmentioned | None
    """Hallucination: questions about people whom no text mentions."""
    changed: Changed | None
    """Factual drift: documents that contradict each other."""
    requests: Requests | None
    """Misuse: forbidden requests and harmless twins."""


class Drift(Section):
    """Amounts by which messages and instructions differ from those of the world without it; 0 leaves them equal."""

    first: Count = Field(examples=[100000])
    """Number of the first message: entries of one world with disjoint ranges share no message."""
    words: Share = Field(examples=[0.0, 0.3])
    """Share of the messages whose goods are of words that the world does not have."""
    people: Share = Field(examples=[0.0, 0.5])
    """Share of the messages and instructions about people whom the world does not have."""
    spam: Share | None = Field(examples=[0.8])
    """Share of spam; null: half."""
    labels: Share = Field(examples=[0.0, 0.2])
    """Share of the messages whose label is the other one: concept drift, with texts as before."""


class Taste(Section):
    """Open-ended requests with many acceptable answers, and preferences by a hidden utility (`taste.py`)."""

    requests: Positive = Field(examples=[60, 2000])
    """Number of different requests, each with one demonstration."""
    pairs: Count = Field(examples=[120, 4000])
    """Number of preferences between two demonstrations of a request; requests come in turn."""
    thumbs: Count = Field(default=0, examples=[60])
    """Number of ratings of one answer, up or down, by simulated raters."""
    contradicted: Share = Field(default=0.0, examples=[0.25])
    """Share of the thumbs that their rater gives again, the other way round: a planted fault, which the gate on raw
    data stops; 0: the clean twin."""
    noise: float = Field(ge=0, le=0.5, examples=[0.2, 0.0])
    """Probability that a preference or a thumb by utility is flipped; 0.5: no judgement says anything."""
    shortcut: Share = Field(examples=[0.0, 0.7])
    """Share of the preferences that length alone decides, the longer answer winning; 0: the clean twin."""
    utility: Literal["taste", "null"] = Field(examples=["taste", "null"])
    """null: every preference and thumb is a fair coin, whatever the texts say."""


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
            "repeated",
            "contacts",
            "withdrawn",
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
    drift: Drift | None = Field(
        default=None, examples=[{"first": 100000, "words": 0.3, "people": 0, "spam": None, "labels": 0}]
    )
    """Drift, for the watch of a model that was trained without it; null: none. Not together with `noise`."""
    taste: Taste | None = Field(
        default=None,
        examples=[{"requests": 60, "pairs": 120, "thumbs": 0, "noise": 0.2, "shortcut": 0.0, "utility": "taste"}],
    )
    """Latent taste, for learning from judgement with a known true utility; null: none."""

    @model_validator(mode="after")
    def _numbers_messages_once(self) -> "Settings":
        if self.drift and self.noise:
            raise ValueError("drift and noise both number the messages; remove one of them")
        return self


def read(settings: Settings, _entry: str, log: "RowLog") -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of at most 2,000 rows: the kind's content, language, split and origin; of documents also bits.

    Raises:
        UserError: a number of people that the world does not hold, or more different records than it has.
    """
    from pipeline.data.sources.world.records import tables

    for kind, table in tables(settings, adds(settings)):
        log.accept(kind, len(table))
        yield kind, table


def adds(settings: Settings) -> "dict[Kind, tuple[str, ...]]":
    """The column `consent`, where records are planted whose consent is withdrawn; of a taste the hash of the prompt,
    which keeps all records of a request in one split, and the kind of request.
    """
    added: dict[Kind, tuple[str, ...]] = {}
    if "withdrawn" in settings.planted:
        added |= {"documents": ("consent",), "labelled": ("consent",)}
    if settings.taste:
        added |= {"instructions": (PROMPT, "request"), "preferences": (PROMPT, "request")}
        added |= {"ratings": (PROMPT,)} if settings.taste.thumbs else {}
    return added


def truth(settings: Settings) -> dict[str, Any]:
    """Ground truth of the generator: conventions, facts, entropy, and the exact list of planted records."""
    from pipeline.data.sources.world import records

    return records.truth(settings)


def provenance(settings: Settings) -> dict[str, Any]:
    """Address, revision of the generator, and SHA-256 of its revision and settings."""
    # without doses, drift and taste as before there were any, so that the data of such a world keeps its hash
    absent = {key for key in ("doses", "drift", "taste") if getattr(settings, key) is None}
    name = f"{REVISION}\0{settings.model_dump_json(exclude=absent)}"
    return {"address": "embedded", "sha256": hashlib.sha256(name.encode()).hexdigest(), "revision": REVISION}
