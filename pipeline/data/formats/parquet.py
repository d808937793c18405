"""Parquet files, read a batch of rows at a time; nested fields by their path, such as review.text."""

from collections.abc import Iterator
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.section import Section
from pipeline.data.formats._arrow import batch_rows, columns_read
from pipeline.data.formats._shape import Row, Shape
from pipeline.data.formats._text import File, on_disk
from pipeline.errors import UserError

_BATCH_ROWS = 500


class Settings(Section):
    """No settings: the file describes itself."""


def rows(file: File, _settings: Settings, shape: Shape) -> Iterator[Row]:
    """Rows with their number from 1 on.

    Raises:
        UserError: not parquet, missing or repeated columns, text that is not UTF-8.
    """
    if file.name.endswith(".gz"):
        raise UserError(f"{file.shown}: parquet is compressed inside and cannot be read through gzip; gunzip it first")
    try:
        with on_disk(file) as path, pq.ParquetFile(path) as reader:
            wanted = columns_read(reader.schema_arrow.names, shape, file.shown)
            # One reader per row group: a reader over the whole file keeps the bytes of every group that it has read.
            groups = range(reader.num_row_groups)
            batches = (reader.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted) for group in groups)
            yield from batch_rows(chain.from_iterable(batches), shape, file.shown)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"{file.shown}: not a whole parquet file ({str(error).splitlines()[0][:200]}); "
            "expected parquet: fetch or write it again"
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise UserError(f"{file.shown}: damaged parquet ({str(error).splitlines()[0][:200]}); fetch it again") from None
