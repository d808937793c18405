"""Comma, semicolon or bar separated values, read strictly (see `_table`)."""

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
    delimiter: Literal[",", ";", "|"]
    """Spreadsheets write ; where the comma is the decimal sign, as in Turkish."""
    header: bool
    """The first row names the columns; without it they are called "0", "1", ..."""
    quoting: Literal["standard", "none"]
    """`none`: a quote is text like any other character."""


def rows(file: File, settings: Settings, shape: Shape) -> Iterator[Row]:
    """Rows with the number of their first line; errors: see `_table.table_rows`."""
    quoted = settings.quoting == "standard"
    return table_rows(file, shape, Dialect(settings.encoding, settings.delimiter, settings.header, quoted))
