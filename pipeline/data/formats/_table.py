"""Strict reader of delimited text (RFC 4180 where quoted): rows are never shifted, padded, merged or split.

Rows end at LF or CRLF outside quotes; a bare CR is text. Blank lines, rows of empty fields (spreadsheets leave them at
the end) and the line `sep=;` that Excel puts first are no rows. Rows with too few or too many fields are rejected with
their
line number. A quote that does not close, or text after a closing quote, leaves the ends of rows undefined: the file is
refused, with the line of the opening quote.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from pipeline.data.formats._shape import ABSENT, BadRow, Row, Shape
from pipeline.data.formats._text import MAX_RECORD_BYTES, File, body, lines
from pipeline.errors import UserError

Record = tuple[int, list[str] | None]


@dataclass(frozen=True)
class Dialect:
    """The notation of a delimited file."""

    encoding: str
    delimiter: str
    header: bool
    """Whether the first row names the columns; else they are called "0", "1", ..."""
    quoted: bool
    """Whether quotes delimit fields; else they are text."""


def table_rows(file: File, shape: Shape, dialect: Dialect) -> Iterator[Row]:
    """Rows with the number of their first line.

    Raises:
        UserError: undecodable file, missing or repeated columns, broken quoting.
    """
    numbered, delimiter = lines(file, dialect.encoding), dialect.delimiter
    records = _quoted(numbered, delimiter, file) if dialect.quoted else _plain(numbered, delimiter)
    records = (record for record in records if not _is_blank(record[1]))
    start, first = next(records, (0, None))
    if first == [f"sep={delimiter}"[:-1], ""]:
        start, first = next(records, (0, None))
    if first is None:
        raise UserError(
            f"{file.shown}: no row at its start that is under {MAX_RECORD_BYTES:,} bytes; "
            f"expected {'a header' if dialect.header else 'a row'}"
        )
    yield from _mapped(chain([(start, first)], records), shape, dialect, file.shown)


def _mapped(records: Iterator[Record], shape: Shape, dialect: Dialect, shown: str) -> Iterator[Row]:
    """The fields of every record but the header that `shape` takes."""
    start, first = next(records)
    assert first is not None
    names = first if dialect.header else [str(k) for k in range(len(first))]
    places = shape.places(names, shown, _hint(first, dialect.delimiter))
    for number, fields in records if dialect.header else chain([(start, first)], records):
        yield number, _pick(fields, len(names), places)


def _is_blank(fields: list[str] | None) -> bool:
    return fields is not None and not any(map(str.strip, fields))


def _pick(fields: list[str] | None, width: int, places: list[int | None]) -> tuple[object, ...] | BadRow:
    if fields is None:
        return BadRow("too_large", f"a row over {MAX_RECORD_BYTES:,} bytes")
    if len(fields) == width:
        return tuple(ABSENT if place is None else fields[place] for place in places)
    return BadRow("short_row" if len(fields) < width else "long_row", f"{len(fields)} fields; expected {width}")


def _hint(first: list[str], delimiter: str) -> str:
    if any("\r" in name for name in first):
        return " (rows end in a bare CR; expected LF or CRLF)"
    other = next((d for d in (",", ";", "\t", "|") if d != delimiter and d in first[0]), None)
    if other and len(first) == 1:
        return f" (one column: is the delimiter {other!r} rather than {delimiter!r}?)"
    return ""


def _plain(numbered: Iterator[tuple[int, str | None]], delimiter: str) -> Iterator[Record]:
    """Records of lines in which quotes are text."""
    for number, line in numbered:
        yield number, None if line is None else body(line).split(delimiter)


def _quoted(numbered: Iterator[tuple[int, str | None]], delimiter: str, file: File) -> Iterator[Record]:
    """Records in which a field may be quoted: it then ends at its closing quote, line ends included; "" is a quote."""
    for number, line in numbered:
        if line is None:
            yield number, None
        elif '"' not in line:
            yield number, body(line).split(delimiter)
        else:
            yield number, _Scanner(numbered, delimiter, file, number, line).record()


class _Scanner:
    """Parser of one record with quotes, which reads further lines while a quote is open."""

    def __init__(
        self, numbered: Iterator[tuple[int, str | None]], delimiter: str, file: File, number: int, line: str
    ) -> None:
        self.numbered, self.delimiter, self.file = numbered, delimiter, file
        self.number, self.line, self.at = number, line, 0

    def record(self) -> list[str]:
        fields: list[str] = []
        while True:
            if self.line.startswith('"', self.at):
                fields.append(self._quoted_field())
                end = len(body(self.line))
            else:
                end = len(body(self.line))
                stop = self.line.find(self.delimiter, self.at, end)
                stop = end if stop < 0 else stop
                fields.append(self.line[self.at : stop])
                self.at = stop
            if self.at == end:
                return fields
            self.at += 1

    def _quoted_field(self) -> str:
        opened, parts, size = self.number, [], 0
        self.at += 1
        while True:
            stop = self.line.find('"', self.at)
            part = self.line[self.at :] if stop < 0 else self.line[self.at : stop]
            parts.append(part)
            size += len(part)
            if stop < 0:
                self._next_line(opened, size)
            elif self.line.startswith('"', stop + 1):
                parts.append('"')
                self.at = stop + 2
            else:
                self.at = stop + 1
                break
        if self.at < len(body(self.line)) and not self.line.startswith(self.delimiter, self.at):
            self._refuse(
                opened,
                f"the quote closes at line {self.number} and is followed by "
                f"{self.line[self.at : self.at + 12]!r}; expected {self.delimiter!r} or the row's end",
            )
        field = "".join(parts)
        if self.delimiter == "\t" and self.number > opened and "\t" in field:
            # Two messages that each begin with a stray quote would read as one well-formed field.
            self._refuse(opened, f"the quote closes at line {self.number}, with tabs in between: rows would be merged")
        return field

    def _next_line(self, opened: int, size: int) -> None:
        number, line = next(self.numbered, (self.number, None))
        if line is None or size > MAX_RECORD_BYTES:
            self._refuse(opened, f"the quote does not close within {MAX_RECORD_BYTES:,} bytes or the file's end")
        assert line is not None
        self.number, self.line, self.at = number, line, 0

    def _refuse(self, opened: int, fault: str) -> None:
        raise UserError(
            f"{self.file.shown}: line {opened}: a field opens with a quote, but {fault}. Double a quote "
            "that is text, or set quoting: none if this file does not quote its fields"
        )
