"""data/raw and data/tokens become data/samples: every record in its split, none twice, none in two.

For each kind: read, resolve the split, find what repeats (contamination.py), write the rest in input order,
and account for every row: rows in = kept + removed. Documents travel as token ids copied from data/tokens;
their text is read once to compare and never held. Equal inputs give equal bytes, and a kind's files depend
on that kind's records alone.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.config import KINDS, Kind, Params, UserError
from pipeline.data.contamination import BESIDES, COMPARED, REASONS, Removal, besides_of, removals, texts_of
from pipeline.data.records import SPLITS
from pipeline.data.split import resolve_column
from pipeline.files import read_json, replace_folder, write_json, write_table

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
_ROWS = 4096  # records read at a time
_IDS = 1 << 22  # token ids copied at a time

Rows = npt.NDArray[np.int64]


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
    removed: list[pa.Table] = []
    with replace_folder(out) as folder:
        for kind in KINDS:
            path = _existing(raw / f"{kind}.parquet", "download")
            ids = pq.read_table(path, columns=["id", "split"])
            splits = resolve_column(ids["id"], ids["split"], params.split)
            gone = _removals(params, kind, path, splits.to_pylist(), ids["split"].is_valid().to_pylist(), progress)
            stays = np.ones(len(ids), dtype=bool)
            stays[[removal.row for removal in gone]] = False
            ledger[kind] = _account(kind, splits, stays, gone)
            if kind == "documents":
                _write_documents(folder / kind, tokens, ids["id"], splits, stays, ledger[kind])
            else:
                _write_records(folder / kind, path, splits, stays)
            removed.append(_removed(kind, path, ids["id"], splits, gone))
        write_table(folder / "removed.parquet", pa.concat_tables(removed))
        write_json(folder / "ledger.json", ledger)
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


def _removals(
    params: Params, kind: Kind, path: Path, splits: list[str], pinned: list[bool], progress: bool
) -> list[Removal]:
    columns = [*COMPARED[kind], "language"]
    texts = tqdm(
        texts_of(kind, _batches(path, columns)),
        desc=kind,
        total=len(splits),
        unit=" records",
        disable=None if progress else True,
        leave=False,
    )
    besides = besides_of(kind, _batches(path, [*BESIDES[kind], "language"])) if BESIDES[kind] else None
    return removals(
        texts,
        splits,
        params.sample.deduplicate,
        across_splits=params.sample.decontaminate,
        besides=besides,
        pinned=pinned,
    )


def _account(kind: Kind, splits: pa.Array, stays: npt.NDArray[np.bool_], gone: Sequence[Removal]) -> dict[str, Any]:
    kept = Counter(splits.filter(pa.array(stays)).to_pylist())
    reasons = Counter(removal.reason for removal in gone)
    account = {
        "rows_in": len(splits),
        "kept": {split: kept[split] for split in SPLITS},
        "removed": {reason: reasons[reason] for reason in REASONS},
    }
    assert len(splits) == kept.total() + reasons.total(), f"{kind}: rows in are kept or removed, got {account}"
    return account


def _write_records(folder: Path, path: Path, splits: pa.Array, stays: npt.NDArray[np.bool_]) -> None:
    table = pq.read_table(path)
    table = table.set_column(table.column_names.index("split"), table.schema.field("split"), splits)
    for split in SPLITS:
        write_table(folder / f"{split}.parquet", table.filter(pc.and_(pc.equal(splits, split), pa.array(stays))))


def _write_documents(
    folder: Path,
    tokens: Path,
    ids: pa.ChunkedArray,
    splits: pa.Array,
    stays: npt.NDArray[np.bool_],
    account: dict[str, Any],
) -> None:
    if not account["kept"]["train"]:
        raise UserError(
            f"documents: none is left to train on (rows in {account['rows_in']}, kept {account['kept']}, "
            f"removed {account['removed']}); add documents under download.sources, or lower "
            "split.validation and split.test in params.yaml"
        )
    index = pq.read_table(_existing(tokens / "index.parquet", "tokenize"))
    meta = read_json(_existing(tokens / "meta.json", "tokenize"))
    if not index["id"].combine_chunks().equals(ids.combine_chunks()):
        raise UserError(
            f"{tokens / 'index.parquet'}: its {len(index)} rows are not the {len(ids)} records of "
            "documents.parquet; run `dvc repro tokenize`"
        )
    index = index.set_column(index.column_names.index("split"), index.schema.field("split"), splits)
    # A numpy file map of zero bytes is an error, but a training document has at least its end-of-text id.
    all_ids = np.memmap(_existing(tokens / "ids.bin", "tokenize"), np.dtype(meta["dtype"]).newbyteorder("<"), mode="r")
    counts = {}
    for split in SPLITS:
        part = index.filter(pc.and_(pc.equal(splits, split), pa.array(stays)))
        starts, lengths = part["start"].to_numpy(), part["length"].to_numpy().astype(np.int64)
        counts[split] = int(lengths.sum())
        _copy_ids(all_ids, starts, lengths, folder / f"{split}.bin")
        rebased = pa.array(np.cumsum(lengths) - lengths, type=pa.int64())
        part = part.set_column(part.column_names.index("start"), part.schema.field("start"), rebased)
        write_table(folder / f"{split}.parquet", part)
    write_json(
        folder / "meta.json",
        {
            "dtype": meta["dtype"],
            "vocab_size": meta["vocab_size"],
            "end_of_text": meta["end_of_text"],
            "n_documents": account["kept"],
            "n_tokens": counts,
        },
    )


def _copy_ids(ids: npt.NDArray[Any], starts: Rows, lengths: Rows, path: Path) -> None:
    """Writes the ids of documents one after the other, a bounded number at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for rows in _groups(lengths):
            ends = np.cumsum(lengths[rows])
            at = np.repeat(starts[rows] - ends + lengths[rows], lengths[rows]) + np.arange(ends[-1])
            file.write(ids[at].tobytes())


def _groups(lengths: Rows) -> Iterator[slice]:
    """Runs of documents of about _IDS tokens; a longer document is a run of its own."""
    group = np.cumsum(lengths) // _IDS
    edges = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(lengths)]
    return (slice(first, last) for first, last in pairwise(edges) if last > first)


def _removed(kind: Kind, path: Path, ids: pa.ChunkedArray, splits: pa.Array, gone: Sequence[Removal]) -> pa.Table:
    """One kind's rows of removed.parquet; reads texts and origins again, of the removed records only."""
    rows = np.array([removal.row for removal in gone], dtype=np.int64)
    origins, texts = [], []
    first = 0
    for batch in _batches(path, [*COMPARED[kind], "origin"]):
        inside = rows[(rows >= first) & (rows < first + len(batch))] - first
        for record in batch.take(pa.array(inside)).to_pylist():
            origins.append(record["origin"])
            texts.append("\n".join(filter(None, (record[name] for name in COMPARED[kind])))[:_EXCERPT])
        first += len(batch)
    columns = {
        "kind": [kind] * len(gone),
        "id": ids.take(pa.array(rows)).to_pylist(),
        "split": splits.take(pa.array(rows)).to_pylist(),
        "reason": [removal.reason for removal in gone],
        "of": ids.take(pa.array([removal.of for removal in gone], type=pa.int64())).to_pylist(),
        "similarity": [removal.similarity for removal in gone],
        "origin": origins,
        "text": texts,
    }
    return pa.table(columns, schema=REMOVED)


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=_ROWS, columns=columns)


def _existing(path: Path, stage: str) -> Path:
    if not path.exists():
        raise UserError(f"{path}: no such file; `dvc repro {stage}` makes it")
    return path
