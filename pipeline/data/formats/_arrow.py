"""Shared part of parquet and arrow: batches of Arrow columns as rows."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.formats._objects import object_rows
from pipeline.data.formats._shape import AllColumns, Row, Shape
from pipeline.data.formats._text import File, on_disk
from pipeline.errors import UserError


def columns_read(names: list[str], shape: Shape, shown: str) -> list[str]:
    """The columns of a file that hold the fields of a shape, sorted; a field `review.text` lies in column `review`.

    Raises:
        UserError: a required column is missing, or a name occurs twice.
    """
    if isinstance(shape, AllColumns):
        shape.places(names, shown)
        return sorted(names)
    tops = {
        field.theirs: field.theirs if field.theirs in names else field.theirs.split(".")[0] for field in shape.fields
    }
    there = {theirs for theirs, top in tops.items() if top in names}
    repeated = AllColumns()
    repeated.places(names, shown)
    shape.require(there, names, shown)
    return sorted({tops[theirs] for theirs in there})


def batch_rows(batches: Iterator[pa.RecordBatch], shape: Shape, shown: str) -> Iterator[Row]:
    """Rows with their number from 1 on; dictionary-encoded (categorical) and nested columns have their values.

    Raises:
        UserError: text that is not UTF-8, or a value that Python cannot hold.
    """
    return object_rows(_objects(batches, shown, lenient=isinstance(shape, AllColumns)), shape, shown)


def _objects(batches: Iterator[pa.RecordBatch], shown: str, lenient: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows; where `lenient`, a column that cannot be read is null, as no field is mapped to it."""
    number = 0
    for batch in batches:
        try:
            objects = _readable(batch) if lenient else batch.to_pylist()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{shown}: rows {number + 1} to {number + len(batch)}: text that is not UTF-8 "
                f"({error.reason}); write the file again from valid text"
            ) from None
        except (ValueError, OverflowError, pa.ArrowException) as error:
            raise UserError(
                f"{shown}: rows {number + 1} to {number + len(batch)}: a value that cannot be read "
                f"({str(error)[:80]}); leave out its column"
            ) from None
        for value in objects:
            number += 1
            yield number, value


def _readable(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns[name] = column.to_pylist()
        except (ValueError, OverflowError, pa.ArrowException):
            columns[name] = [None] * len(batch)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def metadata(file: File, name: str) -> dict[bytes, bytes]:
    """The metadata of the schema of a parquet or arrow file, such as the features that `datasets` writes."""
    with on_disk(file) as path:
        if name == "parquet":
            return pq.read_schema(path).metadata or {}
        with pa.memory_map(str(path)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            return (pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)).schema.metadata or {}
