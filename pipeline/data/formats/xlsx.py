"""Spreadsheets: one sheet of an xlsx, xlsm, xls or ods file as a table.

Cells that hold text arrive as text; numbers (a whole one as an integer), booleans and dates stay what they are, so only
a label may be one, where `labels` names it. Rows without any value are no rows.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.section import Section
from pipeline.data.formats._shape import ABSENT, Row, Shape
from pipeline.data.formats._text import File, on_disk
from pipeline.errors import UserError

_MAX_BYTES = 1 << 30
"""Most bytes that the parts of a spreadsheet may unpack to: a sheet is read into memory as a whole."""


class Settings(Section):
    """The sheet and its header."""

    sheet: str | None
    """Name of the sheet; null: the first one."""
    header: bool
    """The first row names the columns; without it they are called "0", "1", ..."""


def rows(file: File, settings: Settings, shape: Shape) -> Iterator[Row]:
    """Rows with their row number in the sheet.

    Raises:
        UserError: no spreadsheet, a damaged or protected one, no such sheet, missing or repeated columns.
    """
    with on_disk(file) as path:
        numbered = _cells(path, settings.sheet, file.shown)
    numbered = [(number, cells) for number, cells in numbered if any(cell != "" for cell in cells)]
    if not numbered:
        raise UserError(f"{file.shown}: the sheet holds no row; expected {'a header' if settings.header else 'a row'}")
    width = max(len(cells) for _, cells in numbered)
    _, first = numbered[0]
    names = [str(cell).strip() for cell in first] if settings.header else [str(k) for k in range(width)]
    places = shape.places(names, file.shown)
    for number, cells in numbered[1:] if settings.header else numbered:
        yield number, tuple(ABSENT if place is None else cells[place] for place in places)


def sheets(file: File) -> dict[str, int]:
    """Names of the visible sheets with cells -> number of rows. Raises UserError as `rows`."""
    with on_disk(file) as path, _errors(file.shown):
        from python_calamine import SheetTypeEnum, SheetVisibleEnum

        book = _book(path, file.shown)
        tables = [sheet for sheet in book.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
        seen = [sheet.name for sheet in tables if sheet.visible == SheetVisibleEnum.Visible]
        return {name: book.get_sheet_by_name(name).height for name in seen or [sheet.name for sheet in tables]}


def _cells(path: Path, sheet: str | None, shown: str) -> list[tuple[int, list[Any]]]:
    """Row number and cells of every row between the first and the last one with a value."""
    with _errors(shown):
        book = _book(path, shown)
        names = book.sheet_names
        if not names or (sheet is not None and sheet not in names):
            raise UserError(f"{shown}: no sheet {sheet!r}; one of: {', '.join(names) or 'none'}; correct format.sheet")
        table = book.get_sheet_by_name(names[0] if sheet is None else sheet)
        first = table.start[0] + 1 if table.start is not None else 1
        return [(first + k, [_plain(cell) for cell in row]) for k, row in enumerate(table.iter_rows())]


def _book(path: Path, shown: str) -> Any:
    from python_calamine import CalamineWorkbook

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > _MAX_BYTES:
            raise UserError(f"{shown}: unpacks to {size:,} bytes; expected at most {_MAX_BYTES:,}: save it as CSV")
    return CalamineWorkbook.from_path(str(path))


@contextmanager
def _errors(shown: str) -> Iterator[None]:
    try:
        from python_calamine import CalamineError
    except ModuleNotFoundError:
        raise UserError(
            f"{shown}: python-calamine, which reads spreadsheets, is not installed; run make setup"
        ) from None
    try:
        yield
    except (CalamineError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{shown}: cannot be read as a spreadsheet ({type(error).__name__}: {str(error)[:80]}); expected xlsx, xls "
            "or ods without a password: save it again, or as CSV"
        ) from None


def _plain(cell: Any) -> Any:
    """A cell's value; spreadsheets store whole numbers as 1.0."""
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell
