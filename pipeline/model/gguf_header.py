"""The header of a GGUF file, checked before a number is read; tensors dequantised one at a time to float32.

    header = gguf_header.read(Path("model.gguf"))
    header.metadata["general.architecture"]        # "llama"
    gguf_header.tensor(header, "output_norm.weight")   # float32 [D]

A file of unknown origin may be cut short or name absurd counts, with which the reader of the gguf library would loop
without end, so the header is parsed here, every count bounded by the file itself. Types of values, block sizes and
dequantisation are that library's. Format: docs/gguf.md of ggml.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline import foreign
from pipeline.errors import UserError
from pipeline.foreign import shown

AGAIN = "download the file again, or take another one"
_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_MOST_TENSORS, _MOST_ENTRIES, _MOST_ELEMENTS, _MOST_DIMENSIONS = 1 << 17, 1 << 14, 1 << 24, 4
_LONGEST_TEXT = 1 << 22
"""Bytes of a metadata text; the longest published chat templates have some 20,000."""
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a metadata value (GGUFValueType) -> format of struct."""
_TEXT, _ARRAY = 8, 9


class TensorEntry(NamedTuple):
    """Where and how one tensor is stored."""

    shape: tuple[int, ...]
    """As torch has it: the dimension that is contiguous in memory comes last."""
    kind: str
    """Name of its GGMLQuantizationType: F32, BF16, Q4_1, Q4_K, ..."""
    offset: int
    """Bytes from the beginning of the file."""
    n_bytes: int


@dataclass(frozen=True)
class Header:
    """Metadata and tensors of a GGUF file."""

    path: Path
    metadata: Mapping[str, Any]
    """Key -> number, text, truth value or list of one of these."""
    tensors: Mapping[str, TensorEntry]


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    with path.open("rb") as file:
        return file.read(4) == _MAGIC


def read(path: Path) -> Header:
    """The header of a GGUF file.

    Raises:
        UserError: no GGUF file, another version or byte order, a part of a split model, a file that ends before its
            header or tensors do, absurd counts, a name twice, a type that gguf cannot dequantise.
    """
    foreign.regular(path)
    if path.stat().st_size < 24:
        raise UserError(f"{path}: has {path.stat().st_size} bytes, expected a GGUF file; {AGAIN}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data, path)
        try:
            return _parsed(cursor, path)
        except struct.error:
            raise cursor.fault("it ends within its header: it is not whole") from None


class _Cursor:
    """A place in the file that moves on with every value that is read."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def fault(self, reason: str) -> UserError:
        return UserError(f"{self.path}: cannot be read as GGUF: at byte {self.at:,} {reason}; {AGAIN}")

    def number(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return value

    def count(self, name: str, most: int, kind: str = "Q") -> int:
        value = int(self.number(kind))
        if value > most:
            raise self.fault(f"it has {name} {value:,}, expected at most {most:,}")
        return value

    def text(self) -> str:
        length = self.count("a text of a length of", _LONGEST_TEXT)
        raw = self.data[self.at : self.at + length]
        if len(raw) < length:
            raise self.fault("it ends within a text: it is not whole")
        self.at += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.fault(f"a text is no UTF-8: {shown(raw)}") from None

    def value(self) -> Any:
        kind = self.number("I")
        if kind != _ARRAY:
            return self.scalar(kind)
        inner = self.number("I")
        length = self.count("a list of a length of", _MOST_ELEMENTS)
        if inner not in (*_SCALARS, _TEXT):
            raise self.fault(f"a list holds values of type {inner}, expected numbers, truth values or texts")
        if inner == _TEXT:
            return [self.text() for _ in range(length)]
        values = struct.unpack_from(f"<{length}{_SCALARS[inner]}", self.data, self.at)
        self.at += struct.calcsize(f"<{length}{_SCALARS[inner]}")
        return list(values)

    def scalar(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind not in _SCALARS:
            raise self.fault(f"a value has type {kind}, which GGUF does not know")
        return self.number(_SCALARS[kind])


def _parsed(cursor: _Cursor, path: Path) -> Header:
    if (magic := cursor.data[:4]) != _MAGIC:
        raise UserError(f"{path}: begins with {shown(magic)}, expected {_MAGIC!r}: it is no GGUF file; {AGAIN}")
    cursor.at = 4
    if (version := cursor.number("I")) not in _VERSIONS:
        raise UserError(
            f"{path}: GGUF version is {version:,}; expected one of: {', '.join(map(str, _VERSIONS))}, little-endian; "
            "convert the file with a current llama.cpp"
        )
    n_tensors = cursor.count("tensors:", _MOST_TENSORS)
    n_entries = cursor.count("metadata entries:", _MOST_ENTRIES)
    metadata: dict[str, Any] = {}
    for _ in range(n_entries):
        key = cursor.text()
        if key in metadata:
            raise cursor.fault(f"metadata names {shown(key)} twice")
        metadata[key] = cursor.value()
    if metadata.get("split.count", 0) not in (0, 1):
        raise UserError(
            f"{path}: is one of {shown(metadata['split.count'])} parts of a model; expected a whole one: join them "
            "with llama-gguf-split --merge"
        )
    return Header(path, metadata, _tensors(cursor, n_tensors, metadata))


def _tensors(cursor: _Cursor, count: int, metadata: Mapping[str, Any]) -> dict[str, TensorEntry]:
    """The entries of all tensors, each inside the file."""
    written = []
    for _ in range(count):
        name, dimensions = cursor.text(), cursor.count("dimensions:", _MOST_DIMENSIONS, "I")
        sizes = [cursor.count("a dimension of", 1 << 40) for _ in range(dimensions)]
        written.append((name, tuple(reversed(sizes)), cursor.number("I"), cursor.number("Q")))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment not in {1 << power for power in range(3, 21)}:
        raise cursor.fault(f"general.alignment is {shown(alignment)}, expected a power of two from 8 to 2^20")
    start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorEntry] = {}
    for name, shape, number, offset in written:
        if name in tensors:
            raise cursor.fault(f"two tensors are called {shown(name)}")
        kind, block, size = _kind(number, name, cursor)
        if not shape or shape[-1] % block or not all(shape):
            raise cursor.fault(f"tensor {shown(name)} of type {kind} has shape {list(shape)}, expected rows of {block}")
        n_bytes = prod(shape) // block * size
        if start + offset + n_bytes > len(cursor.data):
            raise UserError(
                f"{cursor.path}: has {len(cursor.data):,} bytes, and tensor {shown(name)} would end at "
                f"{start + offset + n_bytes:,}: the file is not whole; {AGAIN}"
            )
        tensors[name] = TensorEntry(shape, kind, start + offset, n_bytes)
    return tensors


def _kind(number: int, name: str, cursor: _Cursor) -> tuple[str, int, int]:
    """Name, elements a block and bytes a block of a tensor type that can be dequantised; UserError for others."""
    import gguf

    try:
        kind = gguf.GGMLQuantizationType(number)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError):
        known = "/".join(member.name for member in gguf.GGMLQuantizationType if member.value == number) or number
        raise UserError(
            f"{cursor.path}: tensor {shown(name)} is of type {known}, which the gguf library cannot dequantise; take "
            "the model in another quantisation (Q4_K_M, Q8_0, F16, BF16, ...)"
        ) from None
    return kind.name, block, size


def tensor(header: Header, name: str) -> np.ndarray:
    """One tensor, dequantised: float32 [shape]. Raises UserError for NaN and infinity."""
    import gguf

    entry = header.tensors[name]
    stored = np.memmap(header.path, np.uint8, "r", entry.offset, (entry.n_bytes,))
    kind = gguf.GGMLQuantizationType[entry.kind]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = stored.reshape(-1, entry.shape[-1] // block * size)
    with np.errstate(all="ignore"):
        values = np.asarray(gguf.quants.dequantize(rows, kind), np.float32).reshape(entry.shape)
    if not np.isfinite(values).all():
        raise UserError(f"{header.path}: tensor {shown(name)} holds NaN or infinity; expected finite weights; {AGAIN}")
    return values
