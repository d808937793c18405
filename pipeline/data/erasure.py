"""Records that go with a record: itself, its duplicates and near duplicates, its twins, and questions made from it.

Rows are named by record id, by origin (file and line, or a generator's number), or by the SHA-256 of a text. All kinds
of data/raw are searched, a batch at a time. Near duplicates are found by exact Jaccard similarity of word shingles
(Broder 1997) with the threshold of `sample.deduplicate`, also across splits and kinds where deduplication does not
look. A sentence about a person inside another text is not found: name that row too.
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.config.params import Deduplicate
from pipeline.config.recipe import ALL_KINDS, Kind
from pipeline.data import language
from pipeline.data.records import CONSENT, CONTENT, TEXTS, TWIN
from pipeline.data.tables import batches, existing
from pipeline.integrity import kinds_in

_HASH = re.compile(r"[0-9a-f]{64}")
_RATED = re.compile(r"(.+:\d+) rat-\S+(?: over \d+)?")
"""Origin of a record that was made of a rating: the row of the snapshot, the rating, and the answer that lost."""


@dataclass(frozen=True)
class Wanted:
    """The rows that someone asks to forget."""

    rows: Collection[str] = ()
    """Record ids, origins, or SHA-256 of a text in UTF-8."""
    consent: str | None = None
    """All records with this value in column `consent`; None: none."""
    near: bool = True
    """Whether near duplicates go too."""

    def names(self, record: dict[str, Any], kind: Kind) -> str | None:
        """The row of the request that a record is; None if it is none of them."""
        rated = _RATED.fullmatch(record["origin"])
        for name in (record["id"], record["origin"], rated and rated[1]):
            if name in self.rows:
                return str(name)
        if self.consent is not None and record.get(CONSENT) == self.consent:
            return f"consent {self.consent}"
        if any(_HASH.fullmatch(row) for row in self.rows):
            for column in TEXTS[kind]:
                digest = hashlib.sha256((record[column] or "").encode("utf-8", "surrogatepass")).hexdigest()
                if digest in self.rows:
                    return digest
        return None


@dataclass(frozen=True)
class Affected:
    """A record of data/raw to forget."""

    kind: Kind
    id: str
    origin: str
    source: str
    why: str
    """named, duplicate, near duplicate (with its similarity), twin, or question about it; all but the first with the
    id that they go with."""
    form: str
    """Hash of its normal form (`form_of`)."""


@dataclass
class _Found:
    """Records found so far, and what their relatives are recognised by."""

    shingle_words: int
    threshold: float | None
    records: dict[tuple[str, str], Affected] = field(default_factory=dict)
    """(kind, origin) -> record: equal content may come from two rows."""
    forms: dict[str, str] = field(default_factory=dict)
    """Normal form of the compared text -> id."""
    shingles: dict[str, frozenset[str]] = field(default_factory=dict)
    """Id -> word shingles."""
    ids: set[str] = field(default_factory=set)
    origins: dict[str, str] = field(default_factory=dict)
    """Origin of a document -> id: questions about it begin with it."""
    rows: set[str] = field(default_factory=set)
    """Rows of the request that were found."""

    def add(self, record: dict[str, Any], kind: Kind, why: str) -> bool:
        """Adds a record; False if it is known."""
        key = (kind, record["origin"])
        if key in self.records and self.records[key].id == record["id"]:
            return False
        self.records[key] = Affected(kind, record["id"], record["origin"], record["source"], why, form_of(record, kind))
        self.ids.add(record["id"])
        form = compared(record, kind)
        self.forms.setdefault(form, record["id"])
        self.shingles[record["id"]] = shingled(form, self.shingle_words)
        if kind == "documents":
            self.origins[record["origin"]] = record["id"]
        return True

    def relation(self, record: dict[str, Any], kind: Kind) -> str | None:
        """The reason why a record goes with one that was found; None if it does not."""
        if record["id"] in self.ids:
            return f"duplicate of {record['id']}"
        if (twin := record.get(TWIN)) in self.ids:
            return f"twin of {twin}"
        document = record["origin"].rpartition(" passage ")[0]
        if kind == "instructions" and document in self.origins:
            return f"question about {self.origins[document]}"
        form = compared(record, kind)
        if form in self.forms:
            return f"duplicate of {self.forms[form]}"
        return self._near(form)

    def _near(self, form: str) -> str | None:
        if self.threshold is None:
            return None
        own = shingled(form, self.shingle_words)
        for identity, other in self.shingles.items():
            common = len(own & other)
            if common and (similarity := common / (len(own) + len(other) - common)) >= self.threshold:
                return f"near duplicate of {identity} ({similarity:.2f})"
        return None


def affected(wanted: Wanted, raw: Path, deduplicate: Deduplicate) -> tuple[list[Affected], list[str]]:
    """The records to forget by kind, those that were named first, and the rows of the request that no record is.

    The files are read until nothing is added: a twin of a question about a document goes with the document. Relatives
    of near duplicates are not searched, or a chain of them would end at texts unlike any that was named.

    Raises:
        UserError: data/raw is not there.
    """
    found = _Found(deduplicate.shingle_words, deduplicate.near_threshold if wanted.near else None)
    for kind, record in _records(raw):
        if (row := wanted.names(record, kind)) is not None:
            found.add(record, kind, "named" if row in wanted.rows else f"named by {row}")
            found.rows.add(row)
    near: list[tuple[dict[str, Any], Kind, str]] = []
    grew = bool(found.records)
    while grew:
        grew, near = False, []
        for kind, record in _records(raw):
            if (why := found.relation(record, kind)) is None:
                continue
            if why.startswith("near"):
                near.append((record, kind, why))
            else:
                grew |= found.add(record, kind, why)
    for record, kind, why in near:
        found.add(record, kind, why)
    order = {kind: number for number, kind in enumerate(ALL_KINDS)}
    records = sorted(found.records.values(), key=lambda one: order[one.kind])
    return records, [row for row in wanted.rows if row not in found.rows]


def _records(raw: Path) -> Iterator[tuple[Kind, dict[str, Any]]]:
    """Every record of data/raw with the columns that decide."""
    for kind in kinds_in(raw):
        path = existing(raw / f"{kind}.parquet", "download")
        names = pq.read_schema(path).names
        columns = ["id", "origin", "source", "language", *TEXTS[kind]]
        columns += [name for name in (TWIN, CONSENT) if name in names]
        for batch in batches(path, columns):
            for record in batch.to_pylist():
                yield kind, record


def compared(record: dict[str, Any], kind: Kind) -> str:
    """The normal form of a record's content, without its label: one question with another answer is another record."""
    fields = (record[name] for name in CONTENT[kind] if name != "label")
    return "\n".join(language.normal(text, record["language"]) for text in fields if text)


def form_of(record: dict[str, Any], kind: Kind) -> str:
    """16 hexadecimal digits of the SHA-256 of the normal form (`compared`); records of two kinds may share one."""
    return hashlib.sha256(compared(record, kind).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def shingled(form: str, words: int) -> frozenset[str]:
    """The runs of `words` words of a text in normal form; of a shorter one all its words as one."""
    told = language.words(form)
    last = max(1, len(told) - words + 1)
    return frozenset(" ".join(told[i : i + words]) for i in range(last)) if told else frozenset([form])
