"""Sampling of data/raw and data/tokens into data/samples: splits, deduplication, decontamination.

For each kind: resolve the splits, leave out records without ids (unencodable.py), find duplicates (contamination.py),
write the kept records in input order, and count every row: rows in = kept + removed. Documents are written as token ids
copied from data/tokens (shard_writer.py); their text is read once for comparison and never held. Every pass is a
stream: three bytes of memory per record, and some more per record with a duplicate (deduplicate.py). Equal inputs give
equal bytes, and a kind's files depend only on that kind's records.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.config.params import Params
from pipeline.config.recipe import Kind
from pipeline.data.contamination import (
    BESIDES,
    COMPARED,
    REASONS,
    Removals,
    Scope,
    besides_of,
    compared_columns,
    removals,
    texts_of,
)
from pipeline.data.placement import Placement, numbered, placement
from pipeline.data.records import SPLITS, TWIN
from pipeline.data.shard_writer import write_documents
from pipeline.data.tables import Writer, batches, existing, writing
from pipeline.data.twins import ORPHAN, OUTSIDE, Twins
from pipeline.data.unencodable import UNENCODABLE, refusing, rejected_rows
from pipeline.errors import UserError
from pipeline.files import replace_folder, write_json
from pipeline.integrity import kinds_in, write_manifest
from pipeline.tokenizer import Tokenizer

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


def sample(params: Params, raw: Path, tokens: Path, out: Path, progress: bool) -> dict[str, Any]:
    """Replaces the folder `out` by the samples of all kinds; on any error `out` stays as it was.

    Writes documents/{train,validation,test}.bin and .parquet and meta.json, <kind>/{train,validation,test}.parquet for
    the other kinds, ledger.json (the row counts), and removed.parquet with the kept record that each removed one
    repeats.

    Returns:
        Row counts: {kind: {"rows_in": n, "kept": {split: n}, "removed": {reason: n}}}, with "split" of a kind that is
        split by group or time (`Placement.rule`), and "twins" of a kind that has them (twins.py).

    Raises:
        UserError: a file is missing, tokens that belong to other documents, or no document left to train on.
    """
    counts: dict[str, Any] = {}
    vocabulary = refusing(tokens)
    with replace_folder(out) as folder:
        with writing(folder / "removed.parquet", REMOVED) as writer:
            for kind in kinds_in(raw):
                path = existing(raw / f"{kind}.parquet", "download")
                places = placement(path, params.split)
                rejected = _rejected(kind, path, places, tokens, vocabulary)
                places.kept[rejected] = False  # first, so that no record is removed as a duplicate of one of them
                removed, twins = _deduplicated(params, kind, path, places, folder, progress)
                places.kept[removed.rows] = False
                counts[kind] = _counts(kind, places, removed, twins, None if vocabulary is None else len(rejected))
                if kind == "documents":
                    write_documents(folder / kind, tokens, path, places, counts[kind])
                else:
                    _write_records(folder / kind, path, places)
                _write_removed(writer, kind, path, places, removed)
                if twins:
                    _write_left_out(writer, kind, path, places, np.concatenate([removed.rows, rejected]))
                _write_rejected(writer, kind, path, places, rejected)
        write_json(folder / "ledger.json", counts)
        write_manifest(folder)
    return counts


def describe(counts: dict[str, Any]) -> str:
    """The result of `sample` as a text table."""
    refused = any(UNENCODABLE in counted["removed"] for counted in counts.values())
    reasons = (*REASONS, *([UNENCODABLE] if refused else []))
    lines = [f"{'kind':<13} {'rows in':>10} " + " ".join(f"{name:>13}" for name in (*SPLITS, *reasons))]
    for kind, counted in counts.items():
        numbers = [
            *(counted["kept"][split] for split in SPLITS),
            *(counted["removed"].get(reason, 0) for reason in reasons),
        ]
        lines.append(f"{kind:<13} {counted['rows_in']:>10,} " + " ".join(f"{number:>13,}" for number in numbers))
    lines += [f"{kind} {_rule(counted['split'])}" for kind, counted in counts.items() if "split" in counted]
    lines += [f"{kind} {_twins(counted['twins'])}" for kind, counted in counts.items() if "twins" in counted]
    return "\n".join([*lines, "removed records, each with the kept one: data/samples/removed.parquet"])


def _rule(rule: dict[str, Any]) -> str:
    """How one kind was split, in words."""
    words = f"split by {rule['by']}"
    if rule["by"] == "time":
        words += f": validation from {rule['validation_from']}, test from {rule['test_from']}"
    if without := rule[f"without_{rule['by']}"]:
        words += f"; {without:,} records without a {rule['by']} by the hash of their content"
    return words


def _twins(twins: dict[str, Any]) -> str:
    """The twins of one kind, in words."""
    left_out = f"{twins[OUTSIDE]:,} of held-out records and {twins[ORPHAN]:,} of removed ones left out"
    return f"twins: {twins['kept']:,} in training, {twins['share_of_training']:.1%} of it; {left_out}"


def _deduplicated(  # noqa: PLR0913 - the inputs of one kind's pass
    params: Params, kind: Kind, path: Path, places: Placement, scratch: Path, progress: bool
) -> tuple[Removals, dict[str, Any]]:
    """The removals of one kind among its kept records, and the counts of its twins; empty where it has none."""

    def find(scope: Scope | None) -> Removals:
        return _removals(params, kind, path, places, scratch, progress, scope)

    twins = Twins.read(path)
    if twins is not None:
        return twins.deduplicated(places, find)
    return find(None if places.kept.all() else Scope.of_kept(places.kept)), {}


def _removals(  # noqa: PLR0913 - the inputs of one kind's pass
    params: Params, kind: Kind, path: Path, places: Placement, scratch: Path, progress: bool, scope: Scope | None
) -> Removals:
    texts = tqdm(
        texts_of(kind, batches(path, compared_columns(kind))),
        desc=kind,
        total=len(places),
        unit=" records",
        disable=None if progress else True,
        leave=False,
    )
    besides = besides_of(kind, batches(path, [*BESIDES[kind], "language"]), scratch)
    return removals(
        texts,
        places.splits,
        params.sample.deduplicate,
        across_splits=params.sample.decontaminate,
        besides=besides,
        pinned=places.pinned,
        folder=scratch,
        scope=scope,
    )


def _rejected(
    kind: Kind, path: Path, places: Placement, tokens: Path, vocabulary: Tokenizer | None
) -> npt.NDArray[np.int64]:
    """Rows that the vocabulary cannot encode, ascending."""
    rows = rejected_rows(kind, path, tokens, vocabulary)
    if len(rows) and rows[-1] >= len(places):
        raise UserError(f"{tokens}: has rejected rows that {path} lacks; run `dvc repro tokenize`")
    return rows


def _counts(
    kind: Kind, places: Placement, removed: Removals, twins: dict[str, Any], rejected: int | None
) -> dict[str, Any]:
    """Row counts; `rejected`: records that cannot be encoded, None where the vocabulary encodes every text."""
    # np.bincount would widen each entry to eight bytes.
    kept = [int(np.count_nonzero(places.kept & (places.splits == split))) for split in range(len(SPLITS))]
    reasons = [int(np.count_nonzero(removed.reasons == reason)) for reason in range(len(REASONS))]
    counts: dict[str, Any] = {
        "rows_in": len(places),
        "kept": dict(zip(SPLITS, kept, strict=True)),
        "removed": dict(zip(REASONS, reasons, strict=True))
        | {name: twins[name] for name in (OUTSIDE, ORPHAN) if twins}
        | ({} if rejected is None else {UNENCODABLE: rejected}),
        **({"twins": twins} if twins else {}),
        **({"split": places.rule} if places.rule else {}),
    }
    assert len(places) == sum(kept) + sum(counts["removed"].values()), (
        f"{kind}: rows in are kept or removed, got {counts}"
    )
    return counts


def _write_records(folder: Path, path: Path, places: Placement) -> None:
    schema = pq.read_schema(path)
    at = schema.get_field_index("split")
    with ExitStack() as stack:
        writers = {split: stack.enter_context(writing(folder / f"{split}.parquet", schema)) for split in SPLITS}
        for first, batch in numbered(batches(path)):
            last = first + len(batch)
            table = pa.Table.from_batches([batch]).set_column(at, schema.field("split"), places.names(first, last))
            for split, writer in writers.items():
                writer.write(table.filter(places.mask(split, first, last)))


def _write_removed(writer: Writer, kind: Kind, path: Path, places: Placement, removed: Removals) -> None:
    """Writes one kind's rows of removed.parquet; reads texts and origins again, of the removed records only."""
    twins = np.unique(removed.of)
    names = pa.chunked_array([pa.array([], pa.string()), *_ids_of(path, twins)])
    for first, batch in numbered(batches(path, ["id", *COMPARED[kind], "origin"])):
        inside = slice(*np.searchsorted(removed.rows, [first, first + len(batch)]).tolist())
        if inside.start == inside.stop:
            continue
        rows = batch.take(pa.array(removed.rows[inside] - first)).to_pylist()
        columns = {
            "kind": [kind] * len(rows),
            "id": [row["id"] for row in rows],
            "split": places.names(first, first + len(batch)).take(pa.array(removed.rows[inside] - first)),
            "reason": pa.array(REASONS).take(pa.array(removed.reasons[inside])),
            "of": names.take(pa.array(np.searchsorted(twins, removed.of[inside]))).combine_chunks(),
            "similarity": removed.similarities[inside],
            "origin": [row["origin"] for row in rows],
            "text": [_excerpt(kind, row) for row in rows],
        }
        writer.write(pa.table(columns, schema=REMOVED))


def _write_left_out(writer: Writer, kind: Kind, path: Path, places: Placement, removed: npt.NDArray[np.int64]) -> None:
    """Writes the twins that were left out, each with its record."""
    left_out = ~places.kept
    left_out[removed] = False
    for first, batch in numbered(batches(path, ["id", TWIN, "origin", *COMPARED[kind]])):
        rows = np.flatnonzero(left_out[first : first + len(batch)])
        splits = places.names(first, first + len(batch)).take(pa.array(rows)).to_pylist()
        found = batch.take(pa.array(rows)).to_pylist()
        columns = {
            "kind": [kind] * len(found),
            "id": [row["id"] for row in found],
            "split": splits,
            "reason": [ORPHAN if split == "train" else OUTSIDE for split in splits],
            "of": [row[TWIN] for row in found],
            "similarity": [None] * len(found),
            "origin": [row["origin"] for row in found],
            "text": [_excerpt(kind, row) for row in found],
        }
        writer.write(pa.table(columns, schema=REMOVED))


def _write_rejected(writer: Writer, kind: Kind, path: Path, places: Placement, rows: npt.NDArray[np.int64]) -> None:
    """Writes the rows of removed.parquet for records that the vocabulary cannot encode."""
    for first, batch in numbered(batches(path, ["id", *COMPARED[kind], "origin"])):
        at = rows[slice(*np.searchsorted(rows, [first, first + len(batch)]).tolist())] - first
        if len(at):
            records = batch.take(pa.array(at)).to_pylist()
            columns = {
                "kind": [kind] * len(records),
                "id": [record["id"] for record in records],
                "split": places.names(first, first + len(batch)).take(pa.array(at)),
                "reason": [UNENCODABLE] * len(records),
                "of": [None] * len(records),
                "similarity": [None] * len(records),
                "origin": [record["origin"] for record in records],
                "text": [_excerpt(kind, record) for record in records],
            }
            writer.write(pa.table(columns, schema=REMOVED))


def _excerpt(kind: Kind, record: dict[str, Any]) -> str:
    return "\n".join(filter(None, (record[name] for name in COMPARED[kind])))[:_EXCERPT]


def _ids_of(path: Path, rows: npt.NDArray[np.int64]) -> Iterator[pa.Array]:
    """Record ids of the ascending `rows`."""
    for first, batch in numbered(batches(path, ["id"])):
        inside = slice(*np.searchsorted(rows, [first, first + len(batch)]).tolist())
        yield batch["id"].take(pa.array(rows[inside] - first))
