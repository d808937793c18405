"""A JSON array of objects, read one object at a time in bounded memory."""

from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any

from pipeline.config.section import Section
from pipeline.data.formats._objects import DECODER, Objects, RepeatedKeyError
from pipeline.data.formats._shape import Row, Shape
from pipeline.data.formats._text import MAX_RECORD_BYTES, File, text
from pipeline.errors import UserError

_SPACE = " \t\r\n"


class Settings(Section):
    """No settings: JSON is UTF-8 (RFC 8259, section 8.1)."""


def rows(file: File, _settings: Settings, shape: Shape) -> Iterator[Row]:
    """Rows with the first line of their object.

    Raises:
        UserError: no array, invalid JSON (with its line), a first object without the required fields, a repeated key,
            an object over MAX_RECORD_BYTES.
    """
    objects = Objects(shape, file.shown)
    for line, value in _Array(file, objects).elements():
        yield line, objects.row(value)


class _Array:
    """Incremental parser of an array: a window over the text that grows until it holds the next element."""

    def __init__(self, file: File, objects: Objects) -> None:
        self.file, self.objects = file, objects
        self.pieces = text(file, "utf-8")
        self.window, self.at, self.line = "", 0, 1

    def elements(self) -> Iterator[tuple[int, Any]]:
        """The array's elements with the lines on which they begin."""
        if (first := self._peek()) != "[":
            described = "one object (or JSON lines: then set format jsonl)" if first == "{" else repr(first)
            self._refuse(f"found {described}; expected an array of objects: [ {{...}}, {{...}} ]")
        self._move(self.at + 1)
        if self._peek() == "]":
            self._move(self.at + 1)
        else:
            yield from self._listed()
        if left := self._peek():
            self._refuse(f"found {left!r} after the array's end; expected nothing more")

    def _listed(self) -> Iterator[tuple[int, Any]]:
        while True:
            self._peek()
            line = self.line
            yield line, self._element()
            after = self._peek()
            if after not in (",", "]"):
                self._refuse(f"found {after or 'the end of the file'!r} after an element; expected , or ]")
            self._move(self.at + 1)
            if after == "]":
                return

    def _element(self) -> Any:
        while True:
            try:
                value, end = DECODER.raw_decode(self.window, self.at)
                if end < len(self.window) or not self._grow():
                    self._move(end)
                    return value
            except RepeatedKeyError as error:
                raise self.objects.repeated(self.line, error.args[0]) from None
            except RecursionError:
                self._refuse("nested too deeply to read")
            except JSONDecodeError as error:
                if len(self.window) - self.at > MAX_RECORD_BYTES:
                    self._refuse(f"no whole object within {MAX_RECORD_BYTES:,} bytes: broken JSON or too large")
                if not self._grow():
                    self.line += self.window.count("\n", self.at, error.pos)
                    self._refuse(f"broken JSON: {error.msg}, found {self.window[error.pos : error.pos + 20]!r}")

    def _peek(self) -> str:
        """The next character but white space; empty at the end of the file."""
        while True:
            at = self.at
            while at < len(self.window) and self.window[at] in _SPACE:
                at += 1
            self._move(at)
            if at < len(self.window):
                return self.window[at]
            if not self._grow():
                return ""

    def _move(self, to: int) -> None:
        self.line += self.window.count("\n", self.at, to)
        self.at = to

    def _grow(self) -> bool:
        """Drops the window's parsed part and doubles the rest; false at the end of the file."""
        left = self.window[self.at :]
        parts, size = [left], 0
        while size <= len(left) and (piece := next(self.pieces, "")):
            parts.append(piece)
            size += len(piece)
        self.window, self.at = "".join(parts), 0
        return size > 0

    def _refuse(self, fault: str) -> None:
        raise UserError(f"{self.file.shown}: line {self.line}: {fault}")
