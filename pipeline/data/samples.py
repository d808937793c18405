"""data/raw and data/tokens become data/samples: every record in its split, none twice, none in two.

For each kind: read, resolve the split, find what repeats (contamination.py), write the rest in input order,
and account for every row: rows in = kept + removed. Documents travel as token ids copied from data/tokens;
their text is read once to compare and never held. Every pass is a stream: three bytes are held per record, and some
more per record that has a twin (deduplicate.py). Equal inputs give equal bytes, and a kind's files depend on that
kind's records alone.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.config.params import Params
from pipeline.config.recipe import KINDS, Kind
from pipeline.data.contamination import BESIDES, COMPARED, REASONS, Removals, besides_of, removals, texts_of
from pipeline.data.external import read_at
from pipeline.data.records import SPLITS
from pipeline.data.split import resolve_column
from pipeline.data.tables import Writer, batches, writing
from pipeline.errors import UserError
from pipeline.files import read_json, replace_folder, write_json
from pipeline.integrity import write_manifest

REMOVED = pa.schema(
    [
        ("kind", pa.string()),
        ("id", pa.string()),
        ("split", pa.string()),
        ("reason", pa.string()),
        ("of", pa.string()),
        ("similarity", pa.float64()),
        ("origin", pa.string()),
        ("text", pa.string()),
    ]
)
_EXCERPT = 200  # characters of a removed record's text that removed.parquet shows
_IDS = 1 << 18  # token ids copied at a time

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Places:
    """Where each record of a kind belongs."""

    splits: npt.NDArray[np.uint8]
    """Places in SPLITS."""
    pinned: npt.NDArray[np.bool_]
    """Whether its source said so."""
    stays: npt.NDArray[np.bool_]

    def kept(self, split: str, first: int, last: int) -> pa.Array:
        """Of the records from `first` to before `last`, those that stay in this split; a mask."""
        return pa.array(self.stays[first:last] & (self.splits[first:last] == SPLITS.index(split)))

    def names(self, first: int, last: int) -> pa.Array:
        """The split of each."""
        return pa.array(SPLITS).take(pa.array(self.splits[first:last]))


def sample(params: Params, raw: Path, tokens: Path, out: Path, progress: bool) -> dict[str, Any]:
    """Replaces the folder `out` by the samples of all kinds; on any error `out` stays as it was.

    Writes documents/{train,validation,test}.bin and .parquet and meta.json,
    <kind>/{train,validation,test}.parquet for the other kinds, ledger.json, and removed.parquet with what
    each removed record repeats.

    Returns:
        The ledger: {kind: {"rows_in": n, "kept": {split: n}, "removed": {reason: n}}}.

    Raises:
        UserError: a file is missing, tokens that belong to other documents, or no document left to train
        on.
    """
    ledger: dict[str, Any] = {}
    with replace_folder(out) as folder:
        with writing(folder / "removed.parquet", REMOVED) as removed:
            for kind in KINDS:
                path = _existing(raw / f"{kind}.parquet", "download")
                places = _places(path, params)
                gone = _removals(params, kind, path, places, folder, progress)
                places.stays[gone.rows] = False
                ledger[kind] = _account(kind, places, gone)
                if kind == "documents":
                    _write_documents(folder / kind, tokens, path, places, ledger[kind])
                else:
                    _write_records(folder / kind, path, places)
                _write_removed(removed, kind, path, places, gone)
        write_json(folder / "ledger.json", ledger)
        write_manifest(folder)
    return ledger


def describe(ledger: dict[str, Any]) -> str:
    """What `sample` returned as a table for people."""
    lines = [f"{'kind':<13} {'rows in':>10} " + " ".join(f"{name:>13}" for name in (*SPLITS, *REASONS))]
    for kind, account in ledger.items():
        counts = [
            *(account["kept"][split] for split in SPLITS),
            *(account["removed"][reason] for reason in REASONS),
        ]
        lines.append(f"{kind:<13} {account['rows_in']:>10,} " + " ".join(f"{count:>13,}" for count in counts))
    return "\n".join([*lines, "removed records and what each repeats: data/samples/removed.parquet"])


def _places(path: Path, params: Params) -> _Places:
    n = pq.read_metadata(path).num_rows
    places = _Places(np.empty(n, np.uint8), np.empty(n, np.bool_), np.ones(n, np.bool_))
    for first, batch in _numbered(batches(path, ["id", "split"])):
        splits = resolve_column(batch["id"], batch["split"], params.split)
        rows = slice(first, first + len(batch))
        places.splits[rows] = pc.index_in(splits, pa.array(SPLITS)).to_numpy()
        places.pinned[rows] = batch["split"].is_valid().to_numpy(zero_copy_only=False)
    return places


def _removals(params: Params, kind: Kind, path: Path, places: _Places, folder: Path, progress: bool) -> Removals:
    texts = tqdm(
        texts_of(kind, batches(path, [*COMPARED[kind], "language"])),
        desc=kind,
        total=len(places.splits),
        unit=" records",
        disable=None if progress else True,
        leave=False,
    )
    besides = besides_of(kind, batches(path, [*BESIDES[kind], "language"]), folder)
    return removals(
        texts,
        places.splits,
        params.sample.deduplicate,
        across_splits=params.sample.decontaminate,
        besides=besides,
        pinned=places.pinned,
        folder=folder,
    )


def _account(kind: Kind, places: _Places, gone: Removals) -> dict[str, Any]:
    # np.bincount would make eight bytes of each.
    kept = [int(np.count_nonzero(places.stays & (places.splits == split))) for split in range(len(SPLITS))]
    reasons = [int(np.count_nonzero(gone.reasons == reason)) for reason in range(len(REASONS))]
    account = {
        "rows_in": len(places.splits),
        "kept": dict(zip(SPLITS, kept, strict=True)),
        "removed": dict(zip(REASONS, reasons, strict=True)),
    }
    assert len(places.splits) == sum(kept) + sum(reasons), f"{kind}: rows in are kept or removed, got {account}"
    return account


def _write_records(folder: Path, path: Path, places: _Places) -> None:
    schema = pq.read_schema(path)
    at = schema.get_field_index("split")
    with ExitStack() as stack:
        writers = {split: stack.enter_context(writing(folder / f"{split}.parquet", schema)) for split in SPLITS}
        for first, batch in _numbered(batches(path)):
            last = first + len(batch)
            table = pa.Table.from_batches([batch]).set_column(at, schema.field("split"), places.names(first, last))
            for split, writer in writers.items():
                writer.write(table.filter(places.kept(split, first, last)))


def _write_documents(folder: Path, tokens: Path, path: Path, places: _Places, account: dict[str, Any]) -> None:
    if not account["kept"]["train"]:
        raise UserError(
            f"documents: none is left to train on (rows in {account['rows_in']}, kept {account['kept']}, "
            f"removed {account['removed']}); add documents under download.sources, or lower "
            "split.validation and split.test in params.yaml"
        )
    index, meta = _existing(tokens / "index.parquet", "tokenize"), _existing(tokens / "meta.json", "tokenize")
    facts = read_json(meta)
    ids = _existing(tokens / "ids.bin", "tokenize")
    folder.mkdir()
    with ExitStack() as stack:
        source = stack.enter_context(ids.open("rb"))
        schema = pq.read_schema(index)
        parts = {
            split: _Part(
                stack.enter_context((folder / f"{split}.bin").open("wb")),
                stack.enter_context(writing(folder / f"{split}.parquet", schema)),
                np.dtype(facts["dtype"]).newbyteorder("<"),
            )
            for split in SPLITS
        }
        for first, batch in _numbered(_checked(index, path, len(places.splits))):
            last = first + len(batch)
            table = pa.Table.from_batches([batch])
            at = schema.get_field_index("split")
            table = table.set_column(at, schema.field("split"), places.names(first, last))
            for split, part in parts.items():
                part.add(table.filter(places.kept(split, first, last)), source)
    write_json(
        folder / "meta.json",
        {
            "dtype": facts["dtype"],
            "vocab_size": facts["vocab_size"],
            "end_of_text": facts["end_of_text"],
            "n_documents": account["kept"],
            "n_tokens": {split: part.tokens for split, part in parts.items()},
        },
    )


def _checked(index: Path, documents: Path, n: int) -> Iterator[pa.RecordBatch]:
    """The rows of the index, which must be those of the documents.

    Raises:
        UserError: they are not.
    """
    rows = pq.read_metadata(index).num_rows
    pairs = zip(batches(index), batches(documents, ["id"]), strict=True) if rows == n else ()
    for batch, theirs in pairs:
        if not batch["id"].equals(theirs["id"]):
            rows = -1
            break
        yield batch
    if rows != n:
        raise UserError(
            f"{index}: its {pq.read_metadata(index).num_rows} rows are not the {n} records of "
            "documents.parquet; run `dvc repro tokenize`"
        )


class _Part:
    """The documents of one split: their ids one after the other, and their index."""

    def __init__(self, file: BinaryIO, index: Writer, dtype: np.dtype[Any]) -> None:
        self._file, self._index, self._dtype = file, index, dtype
        self.tokens = 0

    def add(self, rows: pa.Table, ids: BinaryIO) -> None:
        """Copies the ids of rows of data/tokens/index.parquet, a bounded number at a time."""
        starts, lengths = rows["start"].to_numpy(), rows["length"].to_numpy().astype(np.int64)
        size = self._dtype.itemsize
        for group in _groups(lengths):
            for first, n in _runs(starts[group], lengths[group]):
                self._file.write(read_at(ids.fileno(), n * size, first * size))
        rebased = pa.array(self.tokens + np.cumsum(lengths) - lengths, type=pa.int64())
        at = rows.column_names.index("start")
        self._index.write(rows.set_column(at, rows.schema.field("start"), rebased))
        self.tokens += int(lengths.sum())


def _runs(starts: Rows, lengths: Rows) -> Iterator[tuple[int, int]]:
    """Where documents that lie one after the other begin, and how many ids they have together."""
    edges = [0, *(np.flatnonzero(starts[1:] != starts[:-1] + lengths[:-1]) + 1).tolist(), len(starts)]
    for first, last in pairwise(edges):
        yield int(starts[first]), int(lengths[first:last].sum())


def _groups(lengths: Rows) -> Iterator[slice]:
    """Runs of documents of about _IDS tokens; a longer document is a run of its own."""
    group = np.cumsum(lengths) // _IDS
    edges = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(lengths)]
    return (slice(first, last) for first, last in pairwise(edges) if last > first)


def _write_removed(writer: Writer, kind: Kind, path: Path, places: _Places, gone: Removals) -> None:
    """One kind's rows of removed.parquet; reads texts and origins again, of the removed records only."""
    twins = np.unique(gone.of)
    names = pa.chunked_array([pa.array([], pa.string()), *_ids_of(path, twins)])
    for first, batch in _numbered(batches(path, ["id", *COMPARED[kind], "origin"])):
        inside = slice(*np.searchsorted(gone.rows, [first, first + len(batch)]).tolist())
        if inside.start == inside.stop:
            continue
        rows = batch.take(pa.array(gone.rows[inside] - first)).to_pylist()
        columns = {
            "kind": [kind] * len(rows),
            "id": [row["id"] for row in rows],
            "split": places.names(first, first + len(batch)).take(pa.array(gone.rows[inside] - first)),
            "reason": pa.array(REASONS).take(pa.array(gone.reasons[inside])),
            "of": names.take(pa.array(np.searchsorted(twins, gone.of[inside]))).combine_chunks(),
            "similarity": gone.similarities[inside],
            "origin": [row["origin"] for row in rows],
            "text": ["\n".join(filter(None, (row[name] for name in COMPARED[kind])))[:_EXCERPT] for row in rows],
        }
        writer.write(pa.table(columns, schema=REMOVED))


def _ids_of(path: Path, rows: Rows) -> Iterator[pa.Array]:
    """The ids of those rows, ascending."""
    for first, batch in _numbered(batches(path, ["id"])):
        inside = slice(*np.searchsorted(rows, [first, first + len(batch)]).tolist())
        yield batch["id"].take(pa.array(rows[inside] - first))


def _numbered(several: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Each batch with the number of its first row."""
    first = 0
    for batch in several:
        yield first, batch
        first += len(batch)


def _existing(path: Path, stage: str) -> Path:
    if not path.exists():
        raise UserError(f"{path}: no such file; `dvc repro {stage}` makes it")
    return path
