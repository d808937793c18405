"""Twins: changed copies of another source's records, for training only (typing errors, paraphrase, back-translation).

Each augmentation gives a share of the records one twin with another text and the same answer or label. A twin names its
record in the column `twin_of`; stage sample puts it where that record is and keeps it in training only, so no twin is
measured on and none of a held-out record is learned from.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.params import Augmentation
from pipeline.config.recipe import Kind
from pipeline.config.section import Section

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.data.ledger import RowLog
    from pipeline.data.originals import Original

_CHANGED = {"documents": "text", "labelled": "text", "instructions": "instruction", "preferences": "instruction"}
"""The column that a twin changes."""
_TABLE_ROWS = 512


class Settings(Section):
    """The records, and how they are changed."""

    of: str
    """The source, above this one in download.sources, whose records get twins."""
    kind: Literal["documents", "labelled", "instructions", "preferences"]
    """Kind of these records. Twins of documents have no bits: their source did not write them."""
    augment: Annotated[list[Augmentation], Field(min_length=1)]
    """Files in pipeline/data/augment with their settings: [{name: typos, share: 0.5, rate: 0.05}]."""
    seed: int
    """Seed of all draws."""

    @model_validator(mode="after")
    def _parts_are_known(self) -> "Settings":
        for number, part in enumerate(self.augment):
            part.settings("data/augment", f"augment[{number}]")
        return self


def read(
    settings: Settings, entry: str, log: "RowLog", records: "Callable[[str], Iterator[tuple[Kind, pa.Table]]]"
) -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of twins, augmentation after augmentation; the source is read once more for each.

    A text without anything to change, and a twin that equals another record, give none.

    Raises:
        UserError: no twin at all, or an augmentation that cannot be made.
    """
    from collections import Counter

    from pipeline.config import plugins
    from pipeline.data.originals import Context
    from pipeline.errors import UserError

    known = {_number(row) for table in _tables(settings, records) for row in table["id"].to_pylist()}
    twins: Counter[str] = Counter()
    originals = len(known)
    for number, part in enumerate(settings.augment):
        where = f"download.sources.{entry}.augment[{number}]"
        augmentation = plugins.load("data/augment", part.name).build(
            part.settings("data/augment", where), Context(settings.seed, where)
        )
        chosen = _Chosen(settings, part, records)
        for rows in _batches(chosen, augmentation.texts(chosen.originals()), known, log):
            twins[part.name] += len(rows)
            yield settings.kind, _table(rows, settings.kind, log)
    if not twins:
        raise UserError(f"download.sources.{entry}: no text of source {settings.of} was changed; see its augment")
    made, share = dict(sorted(twins.items())), twins.total() / originals
    log.provenance["details"] = {"of": settings.of, "records": originals, "twins": made, "share_of_records": share}
    words = ", ".join(f"{n:,} by {name}" for name, n in made.items())
    log.notes.append(f"{twins.total():,} twins of {originals:,} records of source {settings.of} ({words})")


def adds(settings: Settings) -> "dict[Kind, tuple[str, ...]]":
    """The column that names a twin's record."""
    from pipeline.data.records import TWIN

    return {settings.kind: (TWIN,)}


def provenance(settings: Settings) -> dict[str, Any]:
    """Names of the augmentations and of the source; `read` adds the number of twins of each."""
    names = ", ".join(part.name for part in settings.augment)
    return {"address": f"{names} of {settings.of}", "sha256": None, "revision": None}


def _number(identity: str) -> int:
    return int(identity, 16)  # a third of the memory of the text


def _tables(settings: Settings, records: "Callable[[str], Iterator[tuple[Kind, pa.Table]]]") -> "Iterator[pa.Table]":
    return (table for kind, table in records(settings.of) if kind == settings.kind)


class _Chosen:
    """The records that one augmentation changes, in order; those that were given wait for their texts."""

    def __init__(
        self, settings: Settings, part: Augmentation, records: "Callable[[str], Iterator[tuple[Kind, pa.Table]]]"
    ) -> None:
        from collections import deque

        self.settings, self.part, self._records = settings, part, records
        self.waiting: deque[dict[str, Any]] = deque()

    def originals(self) -> "Iterator[Original]":
        """Their texts. Records that are pinned to validation or test, and twins, get no twin."""
        from pipeline.data.originals import Original
        from pipeline.data.records import TWIN
        from pipeline.seeds import seed_for

        for table in _tables(self.settings, self._records):
            for row in table.to_pylist():
                drawn = seed_for(self.settings.seed, "twin", self.part.name, row["id"]) / 2**63
                if row["split"] in (None, "train") and row.get(TWIN) is None and drawn < self.part.share:
                    self.waiting.append(row)
                    yield Original(row["id"], row["language"], row[_CHANGED[self.settings.kind]])


def _batches(
    chosen: _Chosen, texts: "Iterator[Any]", known: set[int], log: "RowLog"
) -> "Iterator[list[dict[str, Any]]]":
    """The twins, a bounded number at a time; failed ones are logged as rejected."""
    from pipeline.data.formats._shape import BadRow
    from pipeline.data.records import CONTENT, TWIN, record_id

    kind = chosen.settings.kind
    batch: list[dict[str, Any]] = []
    for text in texts:
        row = chosen.waiting.popleft()
        if isinstance(text, BadRow):
            log.reject(kind, f"{row['origin']} {chosen.part.name}", None, text.reason, text.detail)
            continue
        if text is None or not text.strip():
            continue
        twin = row | {_CHANGED[kind]: text, TWIN: row["id"], "origin": f"{row['origin']} {chosen.part.name}"}
        identity = record_id(kind, *(twin[name] for name in CONTENT[kind]), history=row.get("history"))
        if _number(identity) in known:
            continue
        known.add(_number(identity))
        batch.append(twin)
        if len(batch) >= _TABLE_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _table(rows: list[dict[str, Any]], kind: Kind, log: "RowLog") -> "pa.Table":
    import pyarrow as pa

    log.accept(kind, len(rows))
    names = [name for name in rows[0] if name not in ("id", "source", "passage", "bits")]
    table = pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in names]))
    return table.append_column("bits", pa.nulls(len(rows), pa.float64())) if kind == "documents" else table
