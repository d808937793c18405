"""A JSON array of objects, at the top of the file or under a key of it, read one object at a time in bounded memory."""

from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any, Literal, NoReturn

from pipeline.config.section import Section
from pipeline.data.formats._objects import DECODER, RepeatedKeyError, object_rows, repeated
from pipeline.data.formats._shape import Row, Shape
from pipeline.data.formats._text import MAX_RECORD_BYTES, File, text
from pipeline.errors import UserError

_SPACE = " \t\r\n"


class Settings(Section):
    """Encoding of the file, and the place of the array."""

    encoding: Literal["utf-8", "utf-8-sig", "utf-16", "windows-1254", "iso-8859-9", "windows-1252", "iso-8859-1"]
    """JSON is UTF-8 (RFC 8259, section 8.1); some programs write it otherwise. A byte that does not fit is an error."""
    records: str | None
    """Key of the array where the file is one object, such as data in {"data": [...]}; keys inside keys are joined by a
    dot. null: the file is the array."""


def rows(file: File, settings: Settings, shape: Shape) -> Iterator[Row]:
    """Rows with the first line of their object.

    Raises:
        UserError: no array, invalid JSON (with its line), a required field that no object has, a repeated key, an
            object over MAX_RECORD_BYTES.
    """
    steps = settings.records.split(".") if settings.records is not None else []
    return object_rows(_Reader(file, settings.encoding).elements(steps), shape, file.shown)


def arrays(file: File, encoding: str, limit: int) -> dict[str, int]:
    """Paths of keys to arrays in a file that is one object -> number of elements, up to `limit`; errors: see `rows`."""
    lengths: dict[str, int] = {}
    for path, _ in _Reader(file, encoding).walk([]):
        lengths[path] = lengths.get(path, 0) + 1
        if lengths[path] >= limit:
            break
    return lengths


class _Reader:
    """Incremental parser: a window over the text that grows until it holds the next element."""

    def __init__(self, file: File, encoding: str) -> None:
        self.file = file
        self.pieces = text(file, encoding)
        self.window, self.at, self.line = "", 0, 1

    def elements(self, steps: list[str]) -> Iterator[tuple[int, Any]]:
        """The elements of the array under these keys, with the lines on which they begin."""
        first = self._peek()
        if steps and first == "{":
            yield from self._under(steps)
        elif steps or first != "[":
            described = "one object (or JSON lines: then set format jsonl)" if first == "{" else repr(first)
            expected = f'an object: {{"{steps[0]}": [...]}}' if steps else "an array of objects: [ {...}, {...} ]"
            self._refuse(f"found {described}; expected {expected}")
        else:
            yield from self._array()
        if left := self._peek():
            self._refuse(f"found {left!r} after the array's end; expected nothing more")

    def walk(self, path: list[str]) -> Iterator[tuple[str, int]]:
        """The path of every element of every array in an object, and in its objects, with its line."""
        if self._peek() != "{":
            return
        for key in self._keys():
            first = self._peek()
            if first == "{" and len(path) < 3:
                yield from self.walk([*path, key])
            elif first == "[":
                for line, _ in self._array():
                    yield ".".join([*path, key]), line
            else:
                self._element()

    def _under(self, steps: list[str]) -> Iterator[tuple[int, Any]]:
        wanted, *rest = steps
        keys = []
        for key in self._keys():
            keys.append(key)
            first = self._peek()
            if key != wanted:
                self._skip(first)
            elif rest and first == "{":
                yield from self._under(rest)
            elif not rest and first == "[":
                yield from self._array()
            else:
                self._refuse(f"under {key!r} found {first!r}; expected {'an object' if rest else 'an array'}")
        if wanted not in keys:
            self._refuse(f"no key {wanted!r}; found: {[key[:40] for key in keys[:20]]}; correct format.records")

    def _skip(self, first: str) -> None:
        if first == "[":
            for _ in self._array():
                pass
        elif first == "{":
            for _ in self._keys():
                self._skip(self._peek())
        else:
            self._element()

    def _keys(self) -> Iterator[str]:
        """The keys of the object that begins here; the caller reads the value after each."""
        self._move(self.at + 1)
        seen = set()
        if self._peek() == "}":
            self._move(self.at + 1)
            return
        while True:
            if (first := self._peek()) != '"':
                self._refuse(f"found {first or 'the end of the file'!r}; expected a key in quotes")
            key = self._element()
            if key in seen:
                raise repeated(self.file.shown, self.line, key)
            seen.add(key)
            if (colon := self._peek()) != ":":
                self._refuse(f"found {colon or 'the end of the file'!r} after a key; expected :")
            self._move(self.at + 1)
            yield key
            if self._ends("}", "a value"):
                return

    def _array(self) -> Iterator[tuple[int, Any]]:
        """The elements of the array that begins here, with their lines."""
        self._move(self.at + 1)
        if self._peek() == "]":
            self._move(self.at + 1)
            return
        while True:
            self._peek()
            line = self.line
            yield line, self._element()
            if self._ends("]", "an element"):
                return

    def _ends(self, close: str, after: str) -> bool:
        """Reads a comma, or the bracket that closes."""
        after_value = self._peek()
        if after_value not in (",", close):
            self._refuse(f"found {after_value or 'the end of the file'!r} after {after}; expected , or {close}")
        self._move(self.at + 1)
        return after_value == close

    def _element(self) -> Any:
        while True:
            try:
                value, end = DECODER.raw_decode(self.window, self.at)
                if end < len(self.window) or not self._grow():
                    self._move(end)
                    return value
            except RepeatedKeyError as error:
                raise repeated(self.file.shown, self.line, error.args[0]) from None
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

    def _refuse(self, fault: str) -> NoReturn:
        raise UserError(f"{self.file.shown}: line {self.line}: {fault}")
