"""Collection of all sources into data/raw: a parquet file per record kind, provenance, and counts of all rows.

Sources are read in their order in params.yaml, a bounded table at a time. A record gets its id (hash of its content)
and its source's name here. A column that one source adds to a kind is null in the records of its other sources, but
`consent` is then their source's. A source with a weight below 1 is subsampled: records whose stable hash of (source,
id) is below the weight are kept, so equal records are kept or left out together and a larger weight only adds. Records
on the list `forget` are left out of every source, and so is all that other sources would make of them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline import integrity
from pipeline.config import plugins
from pipeline.config.params import Download, Source
from pipeline.config.recipe import ALL_KINDS, KINDS, Kind
from pipeline.data import forgotten
from pipeline.data.forgotten import Forgotten
from pipeline.data.formats._shape import Shape
from pipeline.data.ledger import RejectedRow, RowLog
from pipeline.data.records import CONSENT, IDENTITY, SCHEMAS, TEXTS, record_id, schema
from pipeline.errors import UserError
from pipeline.files import replace_folder, write_json

PASSAGES = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("id", "source", "passage")])
"""The passage that a synthesised instruction is about, by the record's id."""
REJECTIONS = pa.schema(
    [
        ("source", pa.string()),
        ("kind", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
_GROUP_ROWS = 1 << 14
_GROUP_BYTES = 32 << 20


def collect(download: Download, out: Path, progress: bool) -> dict[str, Any]:
    """Reads every source and replaces the folder `out`; on any error `out` stays as it was.

    Writes documents, labelled, instructions and preferences .parquet (each always, maybe with no row; see
    records.schema), ratings.parquet where a source gives ratings, provenance.json, ledger.json, rejections.parquet and
    truth.json, and where a source has passages
    beside its records passages.parquet. Equal inputs give equal bytes.

    Returns:
        {source: {"rows": {kind: {"rows_in", "kept", "rejected", "sampled_out"}}, "reasons": {kind: {reason:
        n}}}}, with "forgotten" among the rows where download.forget names a list, and "notes" of a source that has
        some.

    Raises:
        UserError: no source, or a source or a list of forgotten records that cannot be read.
    """
    if not download.sources:
        raise UserError("params.yaml: download.sources is empty; expected at least one source")
    summary: dict[str, Any] = {}
    provenance: dict[str, Any] = {}
    truth: dict[str, Any] = {}
    added = {entry: _added(entry, source) for entry, source in download.sources.items()}
    kinds = [kind for kind in ALL_KINDS if kind in KINDS or any(kind in of for of in added.values())]
    schemas = {kind: schema(kind, chain.from_iterable(of.get(kind, ()) for of in added.values())) for kind in kinds}
    reading = _Reading(download.sources, schemas, forgotten.read(download.forget))
    with replace_folder(out) as folder:
        with ExitStack() as stack:
            writers = {kind: stack.enter_context(_Writer(folder / f"{kind}.parquet", schemas[kind])) for kind in kinds}
            rejections = stack.enter_context(_Writer(folder / "rejections.parquet", REJECTIONS))
            passages = _Passages(folder / "passages.parquet", stack)
            for entry, source in download.sources.items():
                log = RowLog(entry, lambda rows: rejections.write(_table_of(rows)))
                counts = _Counts()
                bar = tqdm(desc=entry, unit=" rows", disable=None if progress else True, leave=False)
                with bar:
                    for kind, table in _read(entry, reading, log, counts):
                        passages.write(table)
                        writers[kind].write(table.select(schemas[kind].names))
                        bar.update(len(table))
                log.flush()
                rows = _summary(entry, log, counts, download.forget is not None)
                summary[entry] = rows | ({"notes": log.notes} if log.notes else {})
                provenance[entry] = _provenance(entry, source, counts, added[entry]) | log.provenance
                truth[entry] = _remembered(_truth(entry, source), reading.forgotten.ids)
        write_json(folder / "provenance.json", {"sources": provenance})
        rows = {entry: counted["rows"] for entry, counted in summary.items()}
        write_json(folder / "ledger.json", {"sources": rows})
        write_json(folder / "truth.json", {"sources": truth})
        integrity.write_manifest(folder)
    return summary


def describe(summary: dict[str, Any]) -> str:
    """The result of `collect` as a text table: rows by source and kind, then rejected rows by reason."""
    lines = [f"{'source':<20} {'kind':<13} {'rows in':>10} {'kept':>10} {'rejected':>9} {'left out':>9}"]
    for entry, counted in summary.items():
        for kind, n in counted["rows"].items():
            lines.append(
                f"{entry:<20} {kind:<13} {n['rows_in']:>10,} {n['kept']:>10,} {n['rejected']:>9,} "
                f"{n['sampled_out']:>9,}"
            )
    for entry, counted in summary.items():
        for kind, reasons in counted["reasons"].items():
            counts = ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())
            lines.append(f"rejected from {entry}, {kind}: {counts} (each with file and line in rejections.parquet)")
    lines += [
        f"forgotten: {n['forgotten']:,} {kind} of {entry}, by the list of download.forget"
        for entry, counted in summary.items()
        for kind, n in counted["rows"].items()
        if n.get("forgotten")
    ]
    lines += [f"{entry}: {note}" for entry, counted in summary.items() for note in counted.get("notes", ())]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Reading:
    """The same for all sources."""

    sources: Mapping[str, Source]
    schemas: dict[Kind, pa.Schema]
    forgotten: Forgotten
    """The records to leave out."""


class _Counts:
    """Counts of one source's rows after its reader: kept, or left out by the weight or as forgotten."""

    def __init__(self) -> None:
        self.kept: Counter[Kind] = Counter()
        self.forgotten: Counter[Kind] = Counter()
        self.sampled_out: Counter[Kind] = Counter()
        self.consents: Counter[str] = Counter()
        """Kept records by their own basis, where the source reads one."""
        self.bytes = 0


class _Writer:
    """A parquet writer that gathers small tables into row groups of similar size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema, self.held, self.rows, self.bytes = schema, [schema.empty_table()], 0, 0
        self.writer = pq.ParquetWriter(path, schema, compression="zstd")

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None:
            self._flush()
        try:
            self.writer.close()
        except OSError:
            if failed is None:  # on a full disk the close fails too; the first error is raised
                raise

    def write(self, table: pa.Table) -> None:
        self.held.append(table)
        self.rows += len(table)
        self.bytes += table.nbytes
        if self.rows >= _GROUP_ROWS or self.bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        table = pa.concat_tables(self.held)
        if len(table):
            self.writer.write_table(table, row_group_size=_GROUP_ROWS)
        self.held, self.rows, self.bytes = [self.schema.empty_table()], 0, 0


class _Passages:
    """Writer of passages.parquet; the file is made when the first passage comes."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path, self._stack = path, stack
        self._writer: _Writer | None = None

    def write(self, table: pa.Table) -> None:
        """Writes the passages of a table of records, if it has any."""
        if "passage" in table.column_names:
            self._writer = self._writer or self._stack.enter_context(_Writer(self._path, PASSAGES))
            self._writer.write(table.select(PASSAGES.names).cast(PASSAGES))


def _added(entry: str, source: Source) -> dict[Kind, tuple[str, ...]]:
    """Kinds of a source's records -> the columns that it adds to them; kinds without any may be missing."""
    settings = source.settings("data/sources", f"download.sources.{entry}")
    module = plugins.load("data/sources", source.name)
    if hasattr(module, "adds"):
        return dict(module.adds(settings))
    if getattr(settings, "columns", None) is None:
        return {}
    shape = Shape.of(settings, f"download.sources.{entry}")
    return {shape.kind: shape.added} if shape.added else {}


def _read(entry: str, reading: _Reading, log: RowLog, counts: _Counts) -> Iterator[tuple[Kind, pa.Table]]:
    """A source's records that its weight keeps and that are not forgotten, with id and source, and `passage` where the
    source has it.
    """
    source = reading.sources[entry]
    settings = source.settings("data/sources", f"download.sources.{entry}")

    def records_of(name: str) -> Iterator[tuple[Kind, pa.Table]]:
        return _read(name, reading, RowLog(name), _Counts())

    others = (records_of,) if hasattr(settings, "of") else ()
    for kind, table in plugins.load("data/sources", source.name).read(settings, entry, log, *others):
        records = _completed(table, kind, entry, source.consent, reading.schemas[kind])
        if reading.forgotten.ids or reading.forgotten.forms:
            gone = reading.forgotten.listed(records, kind)
            counts.forgotten[kind] += sum(gone)
            records = records.filter(pc.invert(pa.array(gone, pa.bool_())))
        remembered = len(records)
        if source.weight < 1:
            within = [_place(entry, identity) < source.weight for identity in records.column("id").to_pylist()]
            records = records.filter(pa.array(within, pa.bool_()))
        counts.kept[kind] += len(records)
        if CONSENT in table.column_names:
            counts.consents.update(records.column(CONSENT).to_pylist())
        counts.sampled_out[kind] += remembered - len(records)
        counts.bytes += sum(
            pc.sum(pc.binary_length(records.column(name))).as_py() or 0
            for name in TEXTS[kind]
            if name in records.column_names
        )
        yield kind, records


def _completed(table: pa.Table, kind: Kind, entry: str, consent: str, whole: pa.Schema) -> pa.Table:
    """The table with id and source added, in the schema `whole`; empty cells of `consent` are the source's."""
    columns = [table.column(name).to_pylist() for name in IDENTITY[kind]]
    for name in whole.names:
        if name not in table.column_names and (name == "history" or name not in SCHEMAS[kind].names):
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
    histories = table.column("history").to_pylist() if "history" in whole.names else [None] * len(table)
    ids = [
        record_id(kind, *content, history=history)
        for content, history in zip(zip(*columns, strict=True), histories, strict=True)
    ]
    added = {"id": pa.array(ids, pa.string()), "source": pa.repeat(pa.scalar(entry, pa.string()), len(ids))}
    if CONSENT in whole.names:
        added[CONSENT] = pc.fill_null(table.column(CONSENT), consent)
    arrays = [added[name] if name in added else table.column(name) for name in whole.names]
    completed = pa.Table.from_arrays(arrays, names=whole.names).cast(whole)
    return completed.append_column("passage", table["passage"]) if "passage" in table.column_names else completed


def _place(entry: str, identity: str) -> float:
    """A stable hash of (source, record id) in [0, 1)."""
    digest = hashlib.sha256(f"{entry}\0{identity}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _table_of(rejected: list[RejectedRow]) -> pa.Table:
    columns = {name: [getattr(row, name) for row in rejected] for name in REJECTIONS.names}
    return pa.table(columns, schema=REJECTIONS)


def _summary(entry: str, log: RowLog, counts: _Counts, forgets: bool) -> dict[str, Any]:
    """Row counts of one source; a reader that counts other rows than have arrived has lost some.

    Args:
        entry: its name.
        log: the reader's rows.
        counts: the rows that have arrived.
        forgets: whether there is a list of forgotten records, whose rows are then counted apart.
    """
    rows: dict[str, dict[str, int]] = {}
    reasons: dict[str, dict[str, int]] = {}
    for kind in ALL_KINDS:
        kept, left_out, rejected = counts.kept[kind], counts.sampled_out[kind], log.rejected(kind)
        arrived = kept + left_out + counts.forgotten[kind]
        assert log.accepted[kind] == arrived, f"{entry}: the reader counts {log.accepted[kind]} {kind}"
        if rows_in := arrived + rejected:
            rows[kind] = {"rows_in": rows_in, "kept": kept, "rejected": rejected, "sampled_out": left_out}
            rows[kind] |= {"forgotten": counts.forgotten[kind]} if forgets else {}
        if rejected:
            reasons[kind] = {reason: n for (of, reason), n in sorted(log.reasons.items()) if of == kind}
    return {"rows": rows, "reasons": reasons}


def _provenance(entry: str, source: Source, counts: _Counts, added: dict[Kind, tuple[str, ...]]) -> dict[str, Any]:
    """Rights, origin and size of one source; the columns that it adds, and its records by their own consent."""
    settings = source.settings("data/sources", f"download.sources.{entry}")
    stated = plugins.load("data/sources", source.name).provenance(settings)
    return {
        "name": source.name,
        "licence": source.licence,
        "consent": source.consent,
        "address": stated["address"],
        "sha256": stated["sha256"],
        "revision": stated["revision"],
        "bytes": counts.bytes,
        "rows": {kind: n for kind, n in counts.kept.items() if n},
        **({"columns": {kind: list(columns) for kind, columns in added.items()}} if added else {}),
        **({"consents": dict(sorted(counts.consents.items()))} if counts.consents else {}),
        **({} if (form := getattr(settings, "label_form", "one")) == "one" else {"label_form": form}),
    }


def _remembered(truth: Any, gone: frozenset[str]) -> Any:
    """A source's truth without the entries that name a forgotten record."""
    if isinstance(truth, dict):
        return {key: _remembered(value, gone) for key, value in truth.items() if key not in gone}
    if isinstance(truth, list):
        return [_remembered(one, gone) for one in truth if not _named(one) & gone]
    return truth


def _named(entry: Any) -> set[str]:
    """The strings of one entry of a list."""
    values = entry.values() if isinstance(entry, dict) else [entry]
    return {value for value in values if isinstance(value, str)}


def _truth(entry: str, source: Source) -> dict[str, Any]:
    module = plugins.load("data/sources", source.name)
    if not hasattr(module, "truth"):
        return {}
    return dict(module.truth(source.settings("data/sources", f"download.sources.{entry}")))
