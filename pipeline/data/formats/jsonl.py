"""JSON lines: one object per line, UTF-8. A line that is no JSON is rejected with its number."""

from collections.abc import Iterator

from pipeline.config.section import Section
from pipeline.data.formats._objects import DECODER, Objects, RepeatedKeyError
from pipeline.data.formats._shape import BadRow, Row, Shape
from pipeline.data.formats._text import MAX_RECORD_BYTES, File, lines


class Settings(Section):
    """No settings: JSON is UTF-8 (RFC 8259, section 8.1)."""


def rows(file: File, _settings: Settings, shape: Shape) -> Iterator[Row]:
    """Rows with their line number.

    Raises:
        UserError: undecodable file, a first object without the required fields, a repeated key.
    """
    objects = Objects(shape, file.shown)
    for number, line in lines(file, "utf-8"):
        if line is None:
            yield number, BadRow("too_large", f"a line over {MAX_RECORD_BYTES:,} bytes")
        elif not line.strip():
            yield number, BadRow("empty", "a blank line")
        else:
            yield number, _row(objects, number, line)


def _row(objects: Objects, number: int, line: str) -> tuple[object, ...] | BadRow:
    try:
        return objects.row(DECODER.decode(line))
    except RepeatedKeyError as error:
        raise objects.repeated(number, error.args[0]) from None
    except RecursionError:
        return BadRow("invalid_json", "nested too deeply")
    except ValueError as error:
        return BadRow("invalid_json", str(error))
