"""Comma (or semicolon, or bar) separated values; the rules are those of `_table`."""

from collections.abc import Iterator
from typing import Literal

from pipeline.config.section import Section
from pipeline.data.formats._shape import Row, Shape
from pipeline.data.formats._table import table_rows
from pipeline.data.formats._text import File


class Settings(Section):
    """How the file is written."""

    encoding: Literal["utf-8", "utf-16", "windows-1254", "iso-8859-9", "windows-1252", "iso-8859-1"]
    delimiter: Literal[",", ";", "|"]
    """Spreadsheets write ; where the comma is the decimal sign, as in Turkish."""
    header: bool
    """The first row names the columns; without it they are called "0", "1", ..."""
    quoting: Literal["standard", "none"]
    """`none`: a quote is text like any other character."""


def rows(file: File, settings: Settings, shape: Shape) -> Iterator[Row]:
    """Rows with the line they start at; see `_table.table_rows`."""
    return table_rows(
        file,
        shape,
        encoding=settings.encoding,
        delimiter=settings.delimiter,
        header=settings.header,
        quoted=settings.quoting == "standard",
    )
