"""Gate on data/raw: the expectations on downloaded records before tokenization and training.

`profile` reads data/raw once, in batches, every text column of every record kind; `EXPECTATIONS` is the table of
conditions: schema, nulls, encoding, lengths, language, exact duplicates, labels, personal data, licence and consent,
and row counts that add up.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline import integrity
from pipeline.config.recipe import Kind
from pipeline.config.section import Count, Positive, Section, Share
from pipeline.data.records import SPLITS
from pipeline.gates._rules import Expectation, Frame, Row, at_least, at_most, equals, reaches, suite, warning, zero
from pipeline.gates.profiles import records
from pipeline.gates.profiles.personal import FINDERS
from pipeline.gates.profiles.texts import ENCODING


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
    """Most records of one kind that may hold personal data, by sort of data."""

    email: Count
    phone: Count
    """+90 and 05xx numbers."""
    card: Count
    iban: Count
    identity: Count
    """Turkish identity numbers."""


class Language(Section):
    """Declared language compared with the language that the text itself suggests."""

    sample: Positive | None
    """Records per kind whose language is guessed, evenly spaced; null: all."""
    max_disagreement: Share
    """Of the records whose language can be detected."""
    min_share: dict[str, Share]
    """Language -> least share of the documents that declare it."""


class Labels(Section):
    """Bounds on the labels of labelled records."""

    min_labels: Positive
    min_share: Share
    """Of the records, for the rarest label."""
    max_contradictions: Count
    """Texts that occur under two labels."""


class Settings(Section):
    """gates.raw: the bounds of every expectation that has one."""

    min_rows: RowsByKind
    characters: CharactersByKind
    max_encoding_faults: Count
    """Records of one kind with one sort of broken encoding."""
    language: Language
    max_duplicate_share: Share
    """Share of a kind's records that repeat an earlier one word for word."""
    labels: Labels
    max_personal: Personal
    max_spelled_specials: Count
    """Records of one kind that spell a chat marker as text (harmless, but odd in a corpus): a warning."""
    max_rejected_share: Annotated[float, Field(ge=0, le=1)]
    """Share of a source's rows of one kind that its reader rejected."""


LANGUAGE = reaches("min_document_share", "gates.raw.language.min_share")
DECLARED = "texts are in the language that they declare"
STATED = "download.sources.<source>.{}"
READER = "no bound: fix the reader in pipeline/data/sources"
SOURCE = "no bound: fix the source or its columns"
COLLECT = "no bound: fix pipeline/data/collect.py"
ENCODED = "text came through its encoding unharmed"
PERSONAL = "personal data are no more than allowed"
# Frame, column, condition (with the setting below gates.raw that holds the bound), condition in words.
EXPECTATIONS: list[Row] = [
    (
        "schema",
        "found_type",
        equals("expected_type", READER),
        "columns and types equal pipeline/data/records.py",
    ),
    ("records", "rows", reaches("min_rows", "gates.raw.min_rows"), "there are enough records of each kind"),
    ("records", "nulls", zero(SOURCE), "no value is missing in a column that needs one"),
    ("records", "blank", zero(SOURCE), "no text is empty or only white space"),
    ("records", "unknown_splits", zero(SOURCE), f"a pinned split is one of {', '.join(SPLITS)}"),
    ("records", "too_short", zero("gates.raw.characters"), "records are neither too short nor too long"),
    ("records", "too_long", zero("gates.raw.characters"), "records are neither too short nor too long"),
    *(("records", name, at_most("max_encoding_faults"), ENCODED) for name in ("invalid_utf8", *ENCODING)),
    *(("records", f"personal_{name}", at_most(f"max_personal.{name}"), PERSONAL) for name in FINDERS),
    ("records", "spelled_specials", warning(at_most("max_spelled_specials")), "texts seldom spell a chat marker"),
    ("records", "duplicate_share", at_most("max_duplicate_share"), "few records repeat another exactly"),
    ("records", "language_disagreement_share", at_most("language.max_disagreement"), DECLARED),
    ("languages", "document_share", LANGUAGE, "each required language has its share of the documents"),
    ("labels", "label_share", at_least("labels.min_share"), "no label is too rare"),
    ("label_set", "n_labels", at_least("labels.min_labels"), "there are at least two labels"),
    ("label_set", "contradictions", at_most("labels.max_contradictions"), "no text has two labels"),
    ("sources", "licence_stated", at_least(1, STATED.format("licence")), "every source states its licence"),
    ("sources", "consent_stated", at_least(1, STATED.format("consent")), "every source states its consent"),
    ("ledger", "rows_in", equals("accounted", READER), "rows in = kept + rejected + left out by weight"),
    ("ledger", "kept", equals("rows_stored", COLLECT), "every kept row was written"),
    ("ledger", "rejected", equals("rejections_listed", COLLECT), "every rejected row is listed with its reason"),
    ("ledger", "rejected_share", at_most("max_rejected_share"), "the reader rejected few rows"),
]


def profile(settings: Settings, data: Path) -> dict[str, Frame]:
    """Profile tables of `<data>/raw`: schema, records, languages, labels, sources, ledger.

    Raises:
        UserError: a file of data/raw is missing.
    """
    return records.profile(settings, data / "raw")


def expectations(settings: Settings) -> list[Expectation]:
    """The expectations on `profile`'s frames."""
    return suite("gates.raw", settings, EXPECTATIONS)


def admits(data: Path) -> dict[Kind, str]:
    """Per record kind, the SHA-256 of the files that a pass admits."""
    return integrity.admits("raw", data)
