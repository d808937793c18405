"""Gate on data/raw: the expectations on downloaded records before tokenization and training.

`profile` reads data/raw once, in batches, every text column of every record kind; `EXPECTATIONS` is the table of
conditions: schema, nulls, encoding, lengths, language, exact duplicates, labels, personal data, licence and consent,
row counts that add up, synthesised answers that stand in their passages, and ratings of which no rater has too many
and none votes against all others.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline import integrity
from pipeline.config.recipe import Kind
from pipeline.config.section import Count, Positive, Section, Share
from pipeline.data.personal import FINDERS
from pipeline.data.records import SPLITS
from pipeline.gates._rules import Expectation, Frame, Row, at_least, at_most, equals, reaches, suite, warning, zero
from pipeline.gates.profiles import attributes, grounding, ratings, records
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
    ratings: Characters


class RowsByKind(Section):
    """Records of each kind but ratings, which are there only where people gave some."""

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


class Grounding(Section):
    """Answers that a model wrote about passages, compared with these word by word (gates/profiles/grounding.py)."""

    min_share: Share
    """Least share of an answer's content words that occur in its passage; its numbers and names must all occur."""
    max_ungrounded_share: Share
    """Most answers of one source below that."""


class Attribute(Section):
    """An attribute of people that texts state in words, such as sex, age or origin."""

    groups: dict[str, list[str]] = Field(min_length=2)
    """Group -> its words in all languages: {women: [woman, she, kadın], men: [man, he, erkek]}."""
    min_share: Share
    """Least share of each group among the records that state one: a warning, as data may have good reasons."""


class Ratings(Section):
    """How people rate the answers of a served model (gates/profiles/ratings.py)."""

    share_from_raters: Positive
    """Raters from which on shares are judged: fewer, such as one person who rates alone, may give all ratings."""
    max_rater_share: Share
    """Most ratings that one rater gives."""
    max_top_share: Share
    """Most ratings that the busiest twentieth of 20 or more raters gives."""
    max_self_contradiction_share: Share
    """Most votes that differ from the same rater's other vote on the same answers."""
    max_against_share: Share
    """Most votes against the majority of the other raters of the same answers; one half is chance."""
    max_opposing_raters: Count
    """Raters who vote against the majority of the others more often than a coin would."""
    max_opposing_group: Count
    """Raters of a group that does so together, with fewer votes each."""


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
    grounding: Grounding
    ratings: Ratings
    attributes: dict[str, Attribute]
    """Attributes to count by name; {}: none."""


LANGUAGE = reaches("min_document_share", "gates.raw.language.min_share")
DECLARED = "texts are in the language that they declare"
STATED = "download.sources.{{source}}.{}"
READER = "no bound: fix the reader in pipeline/data/sources"
SOURCE = "no bound: fix the source or its columns"
COLLECT = "no bound: fix pipeline/data/collect.py"
CHARACTERS = "gates.raw.characters.{{kind}}.{}"
ENCODED = "texts were read with the encoding that they were written in; the source's format.encoding names it"
PERSONAL = "few records hold personal data"
FAULTS = {
    "invalid_utf8": "bytes that are not UTF-8",
    "replacement_characters": "U+FFFD, the sign for a letter that was lost in reading",
    "nul_characters": "a NUL character",
    "control_characters": "a control character",
    "mojibake": "letters of another encoding, as in müþteri or mÃ¼ÅŸteri for müşteri",
}
DATA = {
    "email": "an e-mail address",
    "phone": "a Turkish phone number",
    "card": "a payment card number",
    "iban": "an IBAN",
    "identity": "a Turkish identity number",
}
OF = "{{{}}} of {{rows}} records {}"
SHORT = OF.format("too_short", "are shorter than {least_characters} characters; the shortest has {shortest}")
LONG = OF.format("too_long", "are longer than {most_characters} characters; the longest has {longest}")
LANGUAGES = (
    "{language_disagreements} of {languages_detected} records are in another language than they declare, "
    "a share of {language_disagreement_share}"
)
MARKERS = warning(at_most("max_spelled_specials"))
# Frame, column, condition (with the setting below gates.raw that holds the bound), condition and values in words.
EXPECTATIONS: list[Row] = [
    (
        "schema",
        "found_type",
        equals("expected_type", READER),
        "columns and types equal pipeline/data/records.py",
        "column {name} has the type: {found_type}",
    ),
    ("records", "rows", reaches("min_rows", "gates.raw.min_rows.{kind}"), "there are enough records", "{rows} records"),
    (
        "records",
        "nulls",
        zero(SOURCE),
        "no value is missing in a column that needs one",
        OF.format("nulls", "lack a value"),
    ),
    (
        "records",
        "blank",
        zero(SOURCE),
        "no text is empty or only white space",
        OF.format("blank", "have a text without a letter"),
    ),
    (
        "records",
        "unknown_splits",
        zero(SOURCE),
        f"a pinned split is one of {', '.join(SPLITS)}",
        OF.format("unknown_splits", "name another split"),
    ),
    ("records", "too_short", zero(CHARACTERS.format("at_least")), "no record is too short", SHORT),
    ("records", "too_long", zero(CHARACTERS.format("at_most")), "no record is too long", LONG),
    *(
        ("records", name, at_most("max_encoding_faults"), ENCODED, OF.format(name, f"hold {FAULTS[name]}"))
        for name in ("invalid_utf8", *ENCODING)
    ),
    *(
        (
            "records",
            f"personal_{name}",
            at_most(f"max_personal.{name}"),
            PERSONAL,
            OF.format(f"personal_{name}", f"hold {DATA[name]}"),
        )
        for name in FINDERS
    ),
    (
        "records",
        "spelled_specials",
        MARKERS,
        "texts seldom spell a chat marker",
        OF.format("spelled_specials", "spell a chat marker such as <|user|>"),
    ),
    (
        "records",
        "duplicate_share",
        at_most("max_duplicate_share"),
        "few records repeat another exactly",
        OF.format("duplicates", "repeat an earlier one word for word, a share of {duplicate_share}"),
    ),
    ("records", "language_disagreement_share", at_most("language.max_disagreement"), DECLARED, LANGUAGES),
    (
        "languages",
        "document_share",
        LANGUAGE,
        "each required language has its share of the documents",
        "{documents} documents declare the language {language}, a share of {document_share}",
    ),
    (
        "labels",
        "label_share",
        at_least("labels.min_share"),
        "no label is too rare",
        "{label_records} records have the label {label}, a share of {label_share}",
    ),
    ("label_set", "n_labels", at_least("labels.min_labels"), "there are enough labels", "{n_labels} different labels"),
    (
        "label_set",
        "contradictions",
        at_most("labels.max_contradictions"),
        "no text has two labels",
        "{contradictions} records repeat a text with another label",
    ),
    (
        "sources",
        "licence_stated",
        at_least(1, STATED.format("licence")),
        "every source states its licence",
        "licence of source {source}: {licence}",
    ),
    (
        "sources",
        "consent_stated",
        at_least(1, STATED.format("consent")),
        "every source states its consent",
        "consent of source {source}: {consent}",
    ),
    (
        "ledger",
        "rows_in",
        equals("accounted", READER),
        "rows in = kept + rejected + left out by weight or as forgotten",
        "source {source} has {rows_in} rows; kept, rejected and left out are {accounted}",
    ),
    (
        "ledger",
        "kept",
        equals("rows_stored", COLLECT),
        "every kept row was written",
        "{kept} rows of source {source} were kept, {rows_stored} are in the file",
    ),
    (
        "ledger",
        "rejected",
        equals("rejections_listed", COLLECT),
        "every rejected row is listed with its reason",
        "{rejected} rows of source {source} were rejected, {rejections_listed} are listed",
    ),
    (
        "ledger",
        "rejected_share",
        at_most("max_rejected_share"),
        "the reader rejected few rows",
        "{rejected} of {rows_in} rows of source {source} were rejected, a share of {rejected_share}",
    ),
    (
        "attributes",
        "stated_share",
        warning(reaches("min_stated_share", "gates.raw.attributes.{attribute}.min_share")),
        "no group of people is stated too seldom",
        "{records} records state {group}, a share of {stated_share} of those that state {attribute}",
    ),
    (
        "grounding",
        "ungrounded_share",
        at_most("grounding.max_ungrounded_share"),
        "answers about a passage stand in it",
        "{ungrounded} of {answers} answers of source {source} do not stand in their passage, a share of "
        "{ungrounded_share}",
    ),
    (
        "ratings",
        "rater_share",
        at_most("ratings.max_rater_share"),
        "no rater gives too many of the ratings",
        "of {ratings} ratings by {raters} raters one rater gave a share of {rater_share}",
    ),
    (
        "ratings",
        "top_share",
        at_most("ratings.max_top_share"),
        "no small group of raters gives too many of the ratings",
        "of {ratings} ratings by {raters} raters the busiest twentieth gave a share of {top_share}",
    ),
    (
        "ratings",
        "self_contradiction_share",
        at_most("ratings.max_self_contradiction_share"),
        "raters seldom contradict themselves",
        "{self_contradictions} votes differ from the same rater's vote on the same answers, a share of "
        "{self_contradiction_share}",
    ),
    (
        "ratings",
        "against_share",
        at_most("ratings.max_against_share"),
        "raters of the same answers mostly agree",
        "{against} of {compared} votes are against the majority of the other raters, a share of {against_share}",
    ),
    (
        "ratings",
        "opposing_raters",
        at_most("ratings.max_opposing_raters"),
        "no rater votes systematically against all others; `tohum journal erase` takes a rater's ratings out",
        "{opposing_raters} of {raters} raters vote against the majority of the others more often than chance",
    ),
    (
        "ratings",
        "opposing_group",
        at_most("ratings.max_opposing_group"),
        "no group of raters votes against all others",
        "{opposing_group} of {raters} raters together vote against the others more often than chance",
    ),
    (
        "grounding",
        "without_record",
        zero(COLLECT),
        "every passage belongs to a record",
        "{without_record} passages of source {source} belong to no record",
    ),
]


def profile(settings: Settings, data: Path) -> dict[str, Frame]:
    """Profile tables of `<data>/raw`: schema, records, languages, labels, sources, ledger, ratings, grounding,
    attributes.

    Raises:
        UserError: a file of data/raw is missing.
    """
    raw = data / "raw"
    counted = {name: (of.groups, of.min_share) for name, of in settings.attributes.items()}
    return records.profile(settings, raw) | {
        "ratings": ratings.profile(settings.ratings.share_from_raters, raw),
        "grounding": grounding.profile(settings.grounding, raw),
        "attributes": attributes.profile(counted, raw),
    }


def expectations(settings: Settings) -> list[Expectation]:
    """The expectations on `profile`'s frames; those on attributes only where the params name some."""
    rows = [row for row in EXPECTATIONS if row[0] != "attributes" or settings.attributes]
    return suite("gates.raw", settings, rows)


def admits(data: Path) -> dict[Kind, str]:
    """Per record kind, the SHA-256 of the files that a pass admits."""
    return integrity.admits("raw", data)
