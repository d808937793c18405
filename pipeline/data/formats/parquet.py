"""Parquet files, read a batch of rows at a time; columns hold text (labels also numbers that `labels` names)."""

from collections.abc import Iterator
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.section import Section
from pipeline.data.formats._shape import ABSENT, Row, Shape
from pipeline.data.formats._text import File
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
        with pq.ParquetFile(file.path) as opened:
            places = shape.places(opened.schema_arrow.names, file.shown)
            yield from _batches(opened, places, file)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"{file.shown}: not a whole parquet file ({str(error).splitlines()[0]}); "
            "expected parquet: fetch or write it again"
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise UserError(f"{file.shown}: damaged parquet ({str(error).splitlines()[0]}); fetch it again") from None


def _batches(opened: pq.ParquetFile, places: list[int | None], file: File) -> Iterator[Row]:
    names = opened.schema_arrow.names
    wanted = [names[place] for place in places if place is not None]
    number = 0
    # One reader per row group: a reader over the whole file keeps the bytes of every group that it has read.
    groups = range(opened.num_row_groups)
    one_group = (opened.iter_batches(_BATCH_ROWS, row_groups=[group], columns=sorted(set(wanted))) for group in groups)
    for batch in chain.from_iterable(one_group):
        try:
            columns = [None if place is None else batch.column(names[place]).to_pylist() for place in places]
        except UnicodeDecodeError as error:
            raise UserError(
                f"{file.shown}: rows {number + 1} to {number + len(batch)}: text that is not UTF-8 "
                f"({error.reason}); write the file again from valid text"
            ) from None
        for row in range(len(batch)):
            number += 1
            yield number, tuple(ABSENT if column is None else column[row] for column in columns)
