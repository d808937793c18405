"""Record tables of one file on disk, read by its format."""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.config import plugins
from pipeline.config.recipe import Kind, Part
from pipeline.data.formats._shape import Shape
from pipeline.data.formats._text import File
from pipeline.data.ledger import RowLog
from pipeline.data.sources._records import tables

__all__ = ["File", "Shape", "records"]


def records(file: File, format: Part, shape: Shape, log: RowLog) -> Iterator[tuple[Kind, pa.Table]]:
    """The file's records as tables. Raises UserError where the file as a whole is invalid in its format."""
    reader = plugins.load("data/formats", format.name)
    settings = format.settings("data/formats", f"{shape.where}.format")
    return tables(reader.rows(file, settings, shape), shape, file.name, file.shown, log)
