"""Record kinds and their Arrow schemas, and the columns that sources add to them.

Every record has an `id` (hash of its content, so equal content has an equal id and a split that never moves), the
`source` entry it came from, its `language` (ISO 639-1, or "und"), a `split` its source pinned it to (null: decided by
the hash), and its `origin`: file and line, or the generator's index, for error messages.

A source may add columns (`columns` of its settings): the roles `group`, `time` and `consent`, and further ones by name,
which evaluation, weighting and ordering may name. All are text, null where a record has no value. A kind has a column
only if one of its sources adds it, and no content is hashed from one.
"""

import hashlib
import unicodedata
from collections.abc import Iterable

import pyarrow as pa

from pipeline.config.recipe import KINDS, Kind


def _lists_of(numbers: pa.DataType) -> pa.DataType:
    """A list of lists, with the names that parquet gives their elements."""
    return pa.list_(pa.field("element", pa.list_(pa.field("element", numbers))))


_COMMON = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("language", pa.string(), nullable=False),
    pa.field("split", pa.string()),
    pa.field("origin", pa.string(), nullable=False),
]
# Content columns of each kind: required of a source, and hashed into the id.
CONTENT: dict[Kind, tuple[str, ...]] = {
    "documents": ("text",),
    "labelled": ("text", "label"),
    "instructions": ("instruction", "input", "output"),
    "preferences": ("instruction", "input", "chosen", "rejected"),
    "ratings": ("prompt", "answers", "verdict", "correction"),
}
IDENTITY: dict[Kind, tuple[str, ...]] = CONTENT | {"ratings": (*CONTENT["ratings"], "rater")}
"""Columns that are hashed into the id: equal ratings of two raters are two records."""
# bits: information content of the text, -log2 p(text) under the source's own distribution; null where it is unknown.
# history: the earlier messages of a conversation (pipeline/data/conversations.py); null for none.
_HISTORY = [pa.field("history", pa.string())]
# A rating's answers are a JSON list of texts; verdict: `choice:0` (index of the chosen answer), `choice:tie`,
# `thumb:up`, `thumb:down` or `correction`; correction: the text that was given instead, else empty. Beside them: ids
# and natural log-probabilities of each answer's tokens, settings of the sampling as JSON, the model that answered, and
# the rater's pseudonym.
_RATED = [
    *_HISTORY,
    pa.field("ids", _lists_of(pa.int32())),
    pa.field("logprobs", _lists_of(pa.float32())),
    pa.field("settings", pa.string()),
    pa.field("model_sha256", pa.string(), nullable=False),
    pa.field("rater", pa.string(), nullable=False),
]
_EXTRA: dict[Kind, list[pa.Field]] = {
    "documents": [pa.field("bits", pa.float64())],
    "instructions": _HISTORY,
    "preferences": _HISTORY,
    "ratings": _RATED,
}
TEXTS: dict[Kind, tuple[str, ...]] = {
    kind: (*columns, *(field.name for field in _EXTRA.get(kind, ()) if field.name == "history"))
    for kind, columns in CONTENT.items()
}
"""Content columns and, where a kind has one, `history`: all that a person wrote."""

SCHEMAS: dict[Kind, pa.Schema] = {
    kind: pa.schema(
        [*_COMMON, *(pa.field(name, pa.string(), nullable=False) for name in columns), *_EXTRA.get(kind, [])]
    )
    for kind, columns in CONTENT.items()
}
SPLITS = ("train", "validation", "test")
GROUP, TIME, CONSENT = "group", "time", "consent"
ROLES = (GROUP, TIME, CONSENT)
"""Added columns with a meaning. group: records of one group belong together (customer, thread, document); time: ISO
8601 in UTC to the second, as `2024-05-31T08:00:00Z`; consent: the basis on which the record may be used."""
TWIN = "twin_of"
"""Added column of the source `augmented`: id of the record that a twin, a changed copy for training, was made of."""
PROMPT = "prompt_id"
"""Added column of the source `journal`: hash of the prompt; records of one prompt, of every kind, are in one split."""
RESERVED = frozenset(
    {
        TWIN,
        PROMPT,
        "model_sha256",
        "logprobs",
        "messages",
        "tools",
        "functions",
        "extra",
        "start",
        "length",
        "bytes",
        *ROLES,
    }
    | {name for kind, schema in SCHEMAS.items() if kind in KINDS for name in schema.names}
)
"""Names that no further column may have."""


def schema(kind: Kind, added: Iterable[str] = ()) -> pa.Schema:
    """The schema of a kind with the columns that its sources add: roles first, then further ones by name."""
    names = set(added)
    ordered = [name for name in ROLES if name in names] + sorted(names.difference(ROLES))
    return pa.schema([*SCHEMAS[kind], *(pa.field(name, pa.string()) for name in ordered)])


def added_columns(kind: Kind, columns: Iterable[str]) -> list[str]:
    """The columns of a kind's file that its sources have added."""
    return [name for name in columns if name not in SCHEMAS[kind].names]


def record_id(kind: Kind, *content: str, history: str | None = None) -> str:
    """16 hexadecimal digits (64 bits) of the SHA-256 of the record's content columns in NFC, in schema order.

    Composed and decomposed letters are one text; letter case and spaces count. A history counts where there is one.
    """
    parts = [*content, history] if history else content
    text = "\0".join([kind, *(unicodedata.normalize("NFC", part) for part in parts)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
