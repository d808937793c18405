"""What downloaded records must be before anything is learned from them.

`profile` reads data/raw once, in batches; `expectations` says what must hold. Schema, nulls, encoding,
lengths, language, exact duplicates, labels, personal data, licence and consent, and an account that adds up.
It looks at every text column of every record kind.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline import integrity
from pipeline.config.recipe import Kind
from pipeline.config.section import Count, Positive, Section, Share
from pipeline.data.records import SPLITS
from pipeline.gates._rules import Frame, Rule, between, equal, reaches
from pipeline.gates.profiles import records
from pipeline.gates.profiles.texts import ENCODING, PERSONAL


class Characters(Section):
    """Length of a record in characters: all its text columns together, the label not counted."""

    at_least: Count
    at_most: Positive


class CharactersByKind(Section):
    """Bounds for each record kind."""

    documents: Characters
    labelled: Characters
    instructions: Characters
    preferences: Characters


class RowsByKind(Section):
    """Records of each kind."""

    documents: Count
    labelled: Count
    instructions: Count
    preferences: Count


class Personal(Section):
    """Records of one kind that hold a datum of each sort."""

    email: Count
    phone: Count
    """+90 and 05xx numbers."""
    card: Count
    iban: Count
    identity: Count
    """Turkish identity numbers."""


class Language(Section):
    """The declared language against the one that the text seems to be in."""

    sample: Positive | None
    """Records per kind that are looked at, evenly spaced; null: all."""
    max_disagreement: Share
    """Of the records whose language can be told."""
    min_share: dict[str, Share]
    """Language -> least share of the documents that declare it."""


class Labels(Section):
    """What labelled records must offer to be learned from."""

    min_labels: Positive
    min_share: Share
    """Of the records, for the rarest label."""
    max_contradictions: Count
    """Texts that stand under two labels."""


class Settings(Section):
    """gates.raw: the bounds of every expectation that has one."""

    min_rows: RowsByKind
    characters: CharactersByKind
    max_encoding_faults: Count
    """Records of one kind with one sort of broken encoding."""
    language: Language
    max_duplicate_share: Share
    """Of a kind's records, those that repeat an earlier one word for word."""
    labels: Labels
    max_personal: Personal
    max_spelled_specials: Count
    """Records of one kind that spell a chat marker as text (harmless, but odd in a corpus): a warning."""
    max_rejected_share: Annotated[float, Field(ge=0, le=1)]
    """Of a source's rows of one kind, those that its reader refused."""


def profile(settings: Settings, data: Path) -> dict[str, Frame]:
    """Profile tables of `<data>/raw`: schema, records, languages, labels, sources, ledger.

    Raises:
        UserError: a file of data/raw is missing.
    """
    return records.profile(settings, data / "raw")


def expectations(settings: Settings) -> list[Rule]:
    """What must hold of `profile`'s frames."""
    rules = [
        equal(
            "schema",
            "found_type",
            "expected_type",
            "no bound: mend the reader in pipeline/data/sources",
            "every column is there, with the type of pipeline/data/records.py, and no other",
        ),
        reaches("records", "rows", "min_rows", "gates.raw.min_rows", "there are enough records of each kind"),
        *(
            between("records", name, "no bound: mend the source or its columns", says, at_most=0)
            for name, says in (
                ("nulls", "no value is missing in a column that needs one"),
                ("blank", "no text is empty or white space alone"),
                ("unknown_splits", f"a pinned split is one of {', '.join(SPLITS)}"),
            )
        ),
        *(
            between(
                "records",
                name,
                "gates.raw.characters",
                "records are neither too short nor too long",
                at_most=0,
            )
            for name in ("too_short", "too_long")
        ),
        *(
            between(
                "records",
                name,
                "gates.raw.max_encoding_faults",
                "text came through its encoding unharmed",
                at_most=settings.max_encoding_faults,
            )
            for name in ("invalid_utf8", *ENCODING)
        ),
        *(
            between(
                "records",
                name,
                f"gates.raw.max_personal.{name.removeprefix('personal_')}",
                "personal data are no more than allowed",
                at_most=getattr(settings.max_personal, name.removeprefix("personal_")),
            )
            for name in PERSONAL
        ),
        between(
            "records",
            "spelled_specials",
            "gates.raw.max_spelled_specials",
            "texts seldom spell a chat marker",
            at_most=settings.max_spelled_specials,
            severity="warning",
        ),
        between(
            "records",
            "duplicate_share",
            "gates.raw.max_duplicate_share",
            "few records repeat another exactly",
            at_most=settings.max_duplicate_share,
            count="duplicates",
        ),
        between(
            "records",
            "language_disagreement_share",
            "gates.raw.language.max_disagreement",
            "texts are in the language they declare",
            at_most=settings.language.max_disagreement,
            count="language_disagreements",
        ),
        reaches(
            "languages",
            "document_share",
            "min_document_share",
            "gates.raw.language.min_share",
            "each required language has its share of the documents",
        ),
        between(
            "labels",
            "label_share",
            "gates.raw.labels.min_share",
            "no label is too rare",
            at_least=settings.labels.min_share,
            count="label_records",
        ),
        between(
            "label_set",
            "n_labels",
            "gates.raw.labels.min_labels",
            "there is something to tell apart",
            at_least=settings.labels.min_labels,
        ),
        between(
            "label_set",
            "contradictions",
            "gates.raw.labels.max_contradictions",
            "no text stands under two labels",
            at_most=settings.labels.max_contradictions,
        ),
        *(
            between(
                "sources",
                name,
                f"download.sources.<source>.{name.removesuffix('_stated')}",
                f"every source states its {name.removesuffix('_stated')}",
                at_least=1,
            )
            for name in ("licence_stated", "consent_stated")
        ),
        equal(
            "ledger",
            "rows_in",
            "accounted",
            "no bound: mend the reader in pipeline/data/sources",
            "rows in = kept + rejected + left out by weight",
        ),
        equal(
            "ledger",
            "kept",
            "rows_stored",
            "no bound: mend pipeline/data/collect.py",
            "what was kept was written",
        ),
        equal(
            "ledger",
            "rejected",
            "rejections_listed",
            "no bound: mend pipeline/data/collect.py",
            "every rejected row is listed with its reason",
        ),
        between(
            "ledger",
            "rejected_share",
            "gates.raw.max_rejected_share",
            "few rows were refused by the reader",
            at_most=settings.max_rejected_share,
            count="rejections_listed",
        ),
    ]
    return rules


def admits(data: Path) -> dict[Kind, str]:
    """Per record kind, the SHA-256 of what a pass lets through."""
    return integrity.admits("raw", data)
