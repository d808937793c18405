"""Plain text: a document per file, line or paragraph, or between separator lines; long documents may be cut.

Blank lines and empty documents are no records. A file read whole and uncut keeps every byte of its text; else line ends
at a record's edges are stripped. Cuts are made, in this order of preference, at the end of a paragraph, a line, a
sentence or a word. `columns: {group: file}` makes the records of a file one group (`split.by: group`).
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator

from pipeline.config.section import Positive, Section
from pipeline.data.formats._shape import BadRow, Row, Shape
from pipeline.data.formats._text import MAX_RECORD_BYTES, File, body, line_parts, lines
from pipeline.errors import UserError

_BY_FILE = {"group": "file"}
_SENTENCE = re.compile(r"[.!?…][\"'”’)]?\s")


class Settings(Section):
    """Boundaries and largest size of documents."""

    encoding: Literal["utf-8", "utf-8-sig", "utf-16", "windows-1254", "iso-8859-9", "windows-1252", "iso-8859-1"]
    """Encoding of the file; a byte that does not fit it is an error."""
    documents: Literal["file", "line", "paragraph", "separator"]
    """Unit of text that becomes one document."""
    separator: str | None
    """With `documents: separator`: the line between two documents; null otherwise."""
    max_characters: Positive | None
    """Longer documents are cut into records of at most this many characters; null leaves them whole."""

    @model_validator(mode="after")
    def _separator_fits(self) -> "Settings":
        if (self.documents == "separator") != bool(self.separator):
            raise ValueError("separator is a line's text with `documents: separator`, and null otherwise")
        return self


def rows(file: File, settings: Settings, shape: Shape) -> Iterator[Row]:
    """Documents with the number of their first line.

    Raises:
        UserError: undecodable or binary file, or a shape other than documents of one text column.
    """
    if shape.kind != "documents" or shape.columns not in ({}, _BY_FILE) or shape.further:
        raise UserError(
            f"{shape.where}: format txt reads documents and has no columns; found kind {shape.kind}, "
            f"columns {shape.columns | shape.further}; expected kind: documents and columns: {{}} or {{group: file}}"
        )
    added = (file.name,) if shape.columns else ()
    for number, row in _documents(file, settings):
        yield number, row if isinstance(row, BadRow) else (*row, *added)


def _documents(file: File, settings: Settings) -> Iterator[Row]:
    collected = _Document(settings)
    # Documents that are cut may have lines of any length, which come in parts; a whole one must fit into memory.
    parts = line_parts(file, settings.encoding) if settings.max_characters else lines(file, settings.encoding)
    starts = True
    for number, line in parts:
        ends = line is None or line.endswith("\n")
        if starts and line is not None and _is_boundary(line, settings):
            yield from collected.end()
        else:
            yield from collected.add(number, line, starts)
            if ends and settings.documents == "line":
                yield from collected.end()
        starts = ends
    yield from collected.end()


def _is_boundary(line: str, settings: Settings) -> bool:
    if settings.documents == "separator":
        return body(line) == settings.separator
    return settings.documents in ("line", "paragraph") and not line.strip()


class _Document:
    """The document being read, kept whole or yielded in pieces as soon as they are full."""

    def __init__(self, settings: Settings) -> None:
        self.mode, self.limit = settings.documents, settings.max_characters
        self._reset()

    def _reset(self) -> None:
        self.start: int | None = None
        self.piece: list[str] = []  # whole paragraphs when cutting, else every line
        self.size = 0
        self.paragraph: list[str] = []
        self.paragraph_start = 0
        self.paragraph_size = 0
        self.too_large: int | None = None

    def add(self, number: int, line: str | None, starts: bool) -> Iterator[Row]:
        """Adds a line, or a part of one that `starts` it or not; yields the pieces that it completes."""
        if self.too_large is not None:
            return
        self.start = self.start or number
        if line is None or self.size > MAX_RECORD_BYTES:
            self._reset()
            self.too_large = number
        elif self.limit is None:
            self.piece.append(line)
            self.size += len(line.encode("utf-8", "surrogatepass"))
        elif line.strip() or not starts:
            yield from self._add_to_paragraph(number, line)
        else:
            yield from self._end_paragraph()
            if self.piece:
                self.piece.append(line)
                self.size += len(line)

    def _add_to_paragraph(self, number: int, line: str) -> Iterator[Row]:
        assert self.limit is not None
        self.paragraph_start = self.paragraph_start if self.paragraph else number
        self.paragraph.append(line)
        self.paragraph_size += len(line)
        if self.paragraph_size <= self.limit:
            return
        yield from self._give()
        text, at, start = "".join(self.paragraph), 0, self.paragraph_start
        while len(text) - at > self.limit:
            cut = _cut(text, at, self.limit)
            yield from _record(start, text[at:cut])
            start += text.count("\n", at, cut)
            at = cut
        self.paragraph, self.paragraph_start, self.paragraph_size = [text[at:]], start, len(text) - at

    def _end_paragraph(self) -> Iterator[Row]:
        if not self.paragraph:
            return
        assert self.limit is not None
        if self.size + self.paragraph_size > self.limit:
            yield from self._give()
        if not self.piece:
            self.start = self.paragraph_start
        self.piece.append("".join(self.paragraph))
        self.size += self.paragraph_size
        self.paragraph, self.paragraph_size = [], 0

    def _give(self) -> Iterator[Row]:
        while self.piece and not self.piece[-1].strip():
            self.piece.pop()  # blank lines between two pieces are in neither, and could exceed the limit
        if self.piece:
            yield from _record(self.start or 1, "".join(self.piece))
        self.piece, self.size, self.start = [], 0, self.paragraph_start

    def end(self) -> Iterator[Row]:
        """Ends the document, at a boundary or at the end of the file; yields the rest of it."""
        if self.too_large is not None:
            yield (
                self.too_large,
                BadRow(
                    "too_large",
                    f"a line or document over {MAX_RECORD_BYTES:,} bytes; "
                    "expected less: set max_characters to cut documents",
                ),
            )
        elif self.limit is not None:
            yield from self._end_paragraph()
            yield from self._give()
        elif self.start is not None:
            text = "".join(self.piece)
            if self.mode == "file":
                yield self.start, (text,)
            elif text.strip():
                yield from _record(self.start, text)
        self._reset()


def _record(line: int, text: str) -> Iterator[Row]:
    lead = len(text) - len(text.lstrip("\r\n"))
    if text.strip():
        yield line + text.count("\n", 0, lead), (text.strip("\r\n"),)


def _cut(text: str, at: int, limit: int) -> int:
    """The best place to cut text[at:] so that at most `limit` characters come before it."""
    window = text[at : at + limit]
    least = limit // 3  # an earlier cut would leave a stub
    line = window.rfind("\n") + 1
    if line > least:
        return at + line
    ends = [match.end() for match in _SENTENCE.finditer(window, least)]
    if ends:
        return at + ends[-1]
    space = window.rfind(" ") + 1
    if space > least:
        return at + space
    cut = at + limit
    while cut > at + 1 and unicodedata.combining(text[cut]):
        cut -= 1  # a letter keeps its accent
    return cut
