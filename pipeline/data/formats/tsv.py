"""Tab separated values, read strictly (see `_table`)."""

from collections.abc import Iterator
from typing import Literal

from pipeline.config.section import Section
from pipeline.data.formats._shape import Row, Shape
from pipeline.data.formats._table import Dialect, table_rows
from pipeline.data.formats._text import File


class Settings(Section):
    """Notation of the file."""

    encoding: Literal["utf-8", "utf-8-sig", "utf-16", "windows-1254", "iso-8859-9", "windows-1252", "iso-8859-1"]
    """Encoding of the file; a byte that does not fit it is an error."""
    header: bool
    """The first row names the columns; without it they are called "0", "1", ..."""
    quoting: Literal["standard", "none"]
    """`none`: a quote is text like any other character, as in most tab separated files."""


def rows(file: File, settings: Settings, shape: Shape) -> Iterator[Row]:
    """Rows with the number of their first line; errors: see `_table.table_rows`."""
    quoted = settings.quoting == "standard"
    return table_rows(file, shape, Dialect(settings.encoding, "\t", settings.header, quoted))
