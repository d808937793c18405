"""Writer of data/samples/documents: token ids copied from data/tokens into one file and one index per split.

pipeline.data.shards reads the result.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.external import read_at
from pipeline.data.placement import Placement, numbered
from pipeline.data.records import SPLITS
from pipeline.data.tables import Writer, batches, existing, writing
from pipeline.errors import UserError
from pipeline.files import read_json, write_json

_IDS = 1 << 18  # token ids copied at a time
Int64s = npt.NDArray[np.int64]


def write_documents(folder: Path, tokens: Path, documents: Path, places: Placement, counts: dict[str, Any]) -> None:
    """Writes <split>.bin and <split>.parquet of every split, and meta.json, into the new folder `folder`.

    Args:
        folder: data/samples/documents.
        tokens: data/tokens.
        documents: data/raw/documents.parquet, whose rows the index of `tokens` must have.
        places: split of each document, and whether it is kept.
        counts: rows_in, kept per split and removed per reason.

    Raises:
        UserError: a file is missing, tokens that belong to other documents, or of some documents none left to train on.
    """
    if counts["rows_in"] and not counts["kept"]["train"]:
        raise UserError(
            f"documents: none is left to train on (rows in {counts['rows_in']}, kept {counts['kept']}, "
            f"removed {counts['removed']}); add documents under download.sources, or lower "
            "split.validation and split.test in params.yaml"
        )
    index, meta, ids = (existing(tokens / name, "tokenize") for name in ("index.parquet", "meta.json", "ids.bin"))
    facts = read_json(meta)
    folder.mkdir()
    with ExitStack() as stack:
        source = stack.enter_context(ids.open("rb"))
        schema = pq.read_schema(index)
        shards = {
            split: _ShardWriter(
                stack.enter_context((folder / f"{split}.bin").open("wb")),
                stack.enter_context(writing(folder / f"{split}.parquet", schema)),
                np.dtype(facts["dtype"]).newbyteorder("<"),
            )
            for split in SPLITS
        }
        for first, batch in numbered(_checked(index, documents, len(places))):
            last = first + len(batch)
            at = schema.get_field_index("split")
            table = pa.Table.from_batches([batch]).set_column(at, schema.field("split"), places.names(first, last))
            for split, shard in shards.items():
                shard.add(table.filter(places.mask(split, first, last)), source)
    write_json(
        folder / "meta.json",
        {
            "dtype": facts["dtype"],
            "vocab_size": facts["vocab_size"],
            "end_of_text": facts["end_of_text"],
            "n_documents": counts["kept"],
            "n_tokens": {split: shard.tokens for split, shard in shards.items()},
        },
    )


def _checked(index: Path, documents: Path, n: int) -> Iterator[pa.RecordBatch]:
    """The rows of the index. Raises UserError where they do not match the documents."""
    rows = pq.read_metadata(index).num_rows
    pairs = zip(batches(index), batches(documents, ["id"]), strict=True) if rows == n else ()
    for batch, expected in pairs:
        if not batch["id"].equals(expected["id"]):
            rows = -1
            break
        yield batch
    if rows != n:
        raise UserError(
            f"{index}: its {pq.read_metadata(index).num_rows} rows are not the {n} records of "
            "documents.parquet; run `dvc repro tokenize`"
        )


class _ShardWriter:
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


def _runs(starts: Int64s, lengths: Int64s) -> Iterator[tuple[int, int]]:
    """Start and number of ids of each run of documents that lie one after the other."""
    edges = [0, *(np.flatnonzero(starts[1:] != starts[:-1] + lengths[:-1]) + 1).tolist(), len(starts)]
    for first, last in pairwise(edges):
        yield int(starts[first]), int(lengths[first:last].sum())


def _groups(lengths: Int64s) -> Iterator[slice]:
    """Groups of documents of about _IDS tokens; a longer document is a group of its own."""
    group = np.cumsum(lengths) // _IDS
    edges = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(lengths)]
    return (slice(first, last) for first, last in pairwise(edges) if last > first)
