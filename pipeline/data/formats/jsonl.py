"""JSON lines: one object per line. Blank lines are skipped; a line that is no JSON is rejected with its number."""

from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any, Literal

from pipeline.config.section import Section
from pipeline.data.formats._objects import DECODER, RepeatedKeyError, object_rows, repeated
from pipeline.data.formats._shape import BadRow, Row, Shape
from pipeline.data.formats._text import MAX_RECORD_BYTES, File, lines


class Settings(Section):
    """Encoding of the file."""

    encoding: Literal["utf-8", "utf-8-sig", "utf-16", "windows-1254", "iso-8859-9", "windows-1252", "iso-8859-1"]
    """JSON is UTF-8 (RFC 8259, section 8.1); some programs write it otherwise. A byte that does not fit is an error."""


def rows(file: File, settings: Settings, shape: Shape) -> Iterator[Row]:
    """Rows with their line number.

    Raises:
        UserError: undecodable file, a required field that no object has, a repeated key.
    """
    return object_rows(_values(file, settings.encoding), shape, file.shown)


def _values(file: File, encoding: str) -> Iterator[tuple[int, Any]]:
    for number, line in lines(file, encoding):
        if line is None:
            yield number, BadRow("too_large", f"a line over {MAX_RECORD_BYTES:,} bytes")
        elif line.strip():
            yield number, _value(line, number, file.shown)


def _value(line: str, number: int, shown: str) -> Any:
    try:
        return DECODER.decode(line)
    except RepeatedKeyError as error:
        raise repeated(shown, number, error.args[0]) from None
    except RecursionError:
        return BadRow("invalid_json", "nested too deeply")
    except JSONDecodeError as error:
        return BadRow("invalid_json", f"{error.msg} at character {error.pos + 1}")
