"""Strict decoding of files to text and lines: no byte is replaced, the first invalid one is named in the error.

Files are read a chunk at a time, in bounded memory for any size of file and length of line. Lines end at LF or CRLF
only. A UTF-8 or UTF-16 byte order mark at the start is removed; a NUL means a binary file, which is refused.
"""

import codecs
import gzip
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.errors import UserError

CHUNK = 1 << 20
MAX_RECORD_BYTES = 32 << 20
"""Largest line, field or document of a text format; `max_characters` of txt cuts larger documents."""
_MEMBER_BYTES = 8 << 30
_MEMBER_RATIO = 200
"""Largest member of a zip archive that is unpacked to disk, and the most that it may expand by beyond 64 MiB."""

# Frequent mistakes: first bytes -> kind of file.
_MAGIC = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip (also docx, xlsx, epub)",
    b"\x1f\x8b": "gzip without .gz in its name",
    b"PAR1": "parquet",
    b"\x89PNG": "a PNG image",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"SQLite": "SQLite",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xd0\xcf\x11\xe0": "an old Office file",
}


@dataclass(frozen=True)
class File:
    """A file to read."""

    path: Path
    shown: str
    """Its name in errors."""
    name: str
    """Its name in the `origin` of records; one that ends in .gz is decompressed."""
    member: str | None = None
    """Its name in the zip archive `path`; None: the file at `path` itself."""


def chunks(file: File) -> Iterator[bytes]:
    """The file's bytes, decompressed if its name ends in .gz.

    Raises:
        UserError: empty file, or broken or cut off gzip or zip.
    """
    with opened(file) as stream:
        if not file.name.endswith(".gz"):
            while chunk := stream.read(CHUNK):
                yield chunk
            return
        try:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                while chunk := unpacked.read(CHUNK):
                    yield chunk
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(
                f"{file.shown}: not a whole gzip file ({error}); expected gzip by its name: fetch it again"
            ) from None


@contextmanager
def opened(file: File) -> Iterator[IO[bytes]]:
    """The file's bytes as a stream, as stored; those of a zip archive's member are unpacked.

    Raises:
        UserError: empty file, or a zip archive that is damaged, encrypted or compressed in an unknown way.
    """
    size = file.path.stat().st_size
    if file.member is None:
        _refuse_empty(size, file)
        with file.path.open("rb") as stream:
            yield stream
        return
    try:
        with zipfile.ZipFile(file.path) as archive, archive.open(file.member) as stream:
            _refuse_empty(archive.getinfo(file.member).file_size, file)
            yield stream
    except (zipfile.BadZipFile, EOFError, zlib.error, KeyError) as error:
        raise UserError(f"{file.shown}: damaged zip archive ({str(error)[:80]}); fetch or write it again") from None
    except (NotImplementedError, RuntimeError) as error:  # zipfile's errors for encrypted and unknown compression
        raise UserError(f"{file.shown}: cannot be unpacked ({str(error)[:80]}); unpack it yourself") from None


@contextmanager
def on_disk(file: File) -> Iterator[Path]:
    """A path with the file's bytes, for readers that seek; a member of a zip archive is unpacked to a temporary file.

    Raises:
        UserError: as `opened`; a member over 8 GiB, or one that expands more than 200-fold beyond 64 MiB.
    """
    if file.member is None:
        _refuse_empty(file.path.stat().st_size, file)
        yield file.path
        return
    with tempfile.NamedTemporaryFile() as unpacked:
        with opened(file) as stream:
            with zipfile.ZipFile(file.path) as archive:
                info = archive.getinfo(file.member)
            most = min(_MEMBER_BYTES, max(64 << 20, _MEMBER_RATIO * info.compress_size))
            if info.file_size > most:
                raise UserError(
                    f"{file.shown}: unpacks from {info.compress_size:,} to {info.file_size:,} bytes; expected at most "
                    f"{most:,}: unpack it yourself if that is right"
                )
            shutil.copyfileobj(stream, unpacked)
        unpacked.flush()
        yield Path(unpacked.name)


def _refuse_empty(size: int, file: File) -> None:
    if size == 0:
        raise UserError(f"{file.shown}: the file is empty (0 bytes); expected records")


def text(file: File, encoding: str) -> Iterator[str]:
    """The file's text in pieces, byte order mark removed.

    Raises:
        UserError: an invalid byte in this encoding, with its offset; a NUL; a known binary format.
    """
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    read, line, first = 0, 1, True
    for chunk in _with_end(chunks(file)):
        if first:
            _refuse_known(file, chunk, encoding)
        held = len(decoder.getstate()[0])
        try:
            piece = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(encoding, "replace").count("\n")
            raise UserError(_undecodable(file, encoding, error, (line + before, read - held))) from None
        read += len(chunk)
        line += piece.count("\n")
        if first and piece:
            piece, first = piece.removeprefix("\ufeff"), False
        if "\0" in piece:
            raise UserError(
                f"{file.shown}: has a NUL character before byte {read:,}, so it is binary; expected text in {encoding}"
            )
        if piece:
            yield piece


def line_parts(file: File, encoding: str) -> Iterator[tuple[int, str]]:
    """Numbered lines with their line ends, split at LF only; a line over CHUNK characters comes in several parts."""
    number, held, size = 1, [""], 0
    for piece in text(file, encoding):
        head, *rest = piece.split("\n")
        held.append(head)
        size += len(head)
        for part in rest:
            yield number, "".join(held) + "\n"
            number, held, size = number + 1, [part], len(part)
        if size > CHUNK:
            yield number, "".join(held)
            held, size = [""], 0
    if size:
        yield number, "".join(held)


def lines(file: File, encoding: str) -> Iterator[tuple[int, str | None]]:
    """Numbered lines with their line ends, split at LF only; None in place of a line over MAX_RECORD_BYTES."""
    number, held, size = 1, [""], 0
    for piece in text(file, encoding):
        head, *rest = piece.split("\n")
        size += len(head)
        if size <= MAX_RECORD_BYTES:
            held.append(head)
        else:
            held = []  # dropped at once, so that memory stays bounded
        for part in rest:
            yield number, _line(held, "\n", size)
            number, held, size = number + 1, [part], len(part)
    if size:
        yield number, _line(held, "", size)


def body(line: str) -> str:
    """A line without its line end (LF or CRLF)."""
    return line.removesuffix("\n").removesuffix("\r") if line.endswith("\n") else line


def _line(held: list[str], end: str, size: int) -> str | None:
    if size > MAX_RECORD_BYTES:
        return None
    line = "".join(held) + end
    if 4 * size > MAX_RECORD_BYTES and len(line.encode("utf-8", "surrogatepass")) > MAX_RECORD_BYTES:
        return None
    return line


def _with_end(parts: Iterator[bytes]) -> Iterator[bytes]:
    yield from parts
    yield b""


def refuse_binary(file: File, head: bytes, expected: str = "text") -> None:
    """Raises UserError where a file's first bytes are those of a known binary format."""
    for magic, file_kind in _MAGIC.items():
        if head.startswith(magic):
            raise UserError(f"{file.shown}: is {file_kind}, not text; expected {expected}")


def _refuse_known(file: File, chunk: bytes, encoding: str) -> None:
    refuse_binary(file, chunk, f"text in {encoding}")
    wide = chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _every_other_nul(chunk[:2000])
    if wide and encoding != "utf-16":
        raise UserError(
            f"{file.shown}: looks like UTF-16; expected {encoding}: set encoding: utf-16, or save the file as UTF-8"
        )


def _every_other_nul(head: bytes) -> bool:
    return (
        len(head) > 3
        and any(head[k::2].count(0) > 0.4 * len(head[k::2]) for k in (0, 1))
        and head.count(0) <= 0.6 * len(head)
    )


def _undecodable(file: File, encoding: str, error: UnicodeDecodeError, start: tuple[int, int]) -> str:
    """The message for an invalid byte; `start`: its line, and the offset of the decoder's first byte."""
    line, base = start
    place = base + error.start
    byte = f"byte {place:,} is 0x{error.object[error.start]:02x}" if error.start < len(error.object) else "cut off"
    inside = " of the decompressed text" if file.name.endswith(".gz") else ""
    return (
        f"{file.shown}: line {line}: {byte}{inside}: not {encoding.upper()} ({error.reason}); expected encoding "
        f"{encoding}: save the file as UTF-8, or name its encoding in format.encoding (windows-1254 and iso-8859-9 "
        "are usual for older Turkish files)"
    )
