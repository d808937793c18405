"""JSON lines: one object a line, UTF-8. A line that is no JSON is rejected with its number."""

from collections.abc import Iterator

from pipeline.config.section import Section
from pipeline.data.formats._objects import DECODER, Objects, RepeatedKeyError
from pipeline.data.formats._shape import Bad, Row, Shape
from pipeline.data.formats._text import MAX_RECORD_BYTES, File, lines


class Settings(Section):
    """Nothing to set: JSON is UTF-8 (RFC 8259, section 8.1)."""


def rows(file: File, settings: Settings, shape: Shape) -> Iterator[Row]:
    """Rows with their line.

    Raises:
        UserError: undecodable file, a first object without the needed fields, a repeated key.
    """
    objects = Objects(shape, file.shown)
    for number, line in lines(file, "utf-8"):
        if line is None:
            yield number, Bad("too_large", f"a line over {MAX_RECORD_BYTES:,} bytes")
        elif not line.strip():
            yield number, Bad("empty", "a blank line")
        else:
            yield number, _row(objects, number, line)


def _row(objects: Objects, number: int, line: str) -> tuple[object, ...] | Bad:
    try:
        return objects.row(DECODER.decode(line))
    except RepeatedKeyError as error:
        raise objects.repeated(number, error.args[0]) from None
    except RecursionError:
        return Bad("invalid_json", "nested too deeply")
    except ValueError as error:
        return Bad("invalid_json", str(error))
