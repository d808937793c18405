"""Parquet files read and written a bounded number of rows at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.files import replacing

_GROUP_ROWS = 1 << 14
_GROUP_BYTES = 32 << 20
_ROWS = 1024  # default number of rows read at a time


class Writer:
    """A parquet writer that gathers small tables into row groups of 16,384 rows, or fewer beyond 32 MiB."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._held: list[pa.Table] = []
        self._rows = self._bytes = self.written = 0

    def write(self, table: pa.Table) -> None:
        """Adds rows; full row groups go to the file."""
        self._held.append(table)
        self._rows += len(table)
        self._bytes += table.nbytes
        while self._rows >= _GROUP_ROWS:
            self._flush(_GROUP_ROWS)
        if self._bytes >= _GROUP_BYTES:
            self._flush(self._rows)

    def close(self) -> None:
        """Writes the last group; a file without rows gets an empty one."""
        if self._rows or not self.written:
            self._flush(self._rows)

    def _flush(self, rows: int) -> None:
        table = pa.concat_tables([*self._held, self._schema.empty_table()])
        self._writer.write_table(table.slice(0, rows).combine_chunks(), row_group_size=_GROUP_ROWS)
        rest = table.slice(rows)
        self._held, self._rows, self._bytes = [rest], len(rest), rest.nbytes
        self.written += rows


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Writer]:
    """A zstd parquet file, written atomically when the block ends without an error; equal rows give equal bytes."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as file:
        writer = Writer(file, schema)
        yield writer
        writer.close()


def batches(path: Path, columns: list[str] | None = None, rows: int | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a file in order, in batches of exactly `rows` (default 1024) but for the last.

    Two files of equally many rows can so be read side by side.
    """
    rows = rows or _ROWS
    waiting: list[pa.RecordBatch] = []
    n = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            # One reader per group: a reader keeps the compressed bytes of every group that it has read.
            for batch in file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
                waiting.append(batch)
                n += len(batch)
                while n >= rows:
                    whole, waiting = _cut(waiting, rows)
                    n -= rows
                    yield whole
    if n:
        yield _cut(waiting, n)[0]


def existing(path: Path, stage: str) -> Path:
    """The path itself. Raises UserError where there is no such file, naming the stage that makes it."""
    if not path.exists():
        raise UserError(f"{path}: no such file; `dvc repro {stage}` makes it")
    return path


def _cut(waiting: list[pa.RecordBatch], rows: int) -> tuple[pa.RecordBatch, list[pa.RecordBatch]]:
    """The first rows as one batch, and the rest."""
    if len(waiting[0]) == rows:
        return waiting[0], waiting[1:]
    table = pa.Table.from_batches(waiting)
    return table.slice(0, rows).combine_chunks().to_batches()[0], table.slice(rows).to_batches()
