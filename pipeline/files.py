"""Files that are either whole or not there: write to a temporary name, flush, rename.

Everything a stage leaves behind goes through here, so that a full disk, a kill or a power cut never leaves a
half-written file under its real name, and so that equal content gives equal bytes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it onto `path` if the block ends well, removes it if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path`; swaps it in if the block ends well, removes it if not.

    A kill between the two renames of the swap leaves the old folder under `kept_aside(path)`. The names carry no
    process id, so that what a killed process left is cleared by the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, aside = path.with_name(f".{path.name}.new.tmp"), kept_aside(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
            path.replace(aside)
        temporary.replace(path)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def kept_aside(path: Path) -> Path:
    """Where `replace_folder` keeps the old folder during the swap."""
    return path.with_name(f".{path.name}.old.tmp")


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text with its line ends as they are."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON with sorted keys, so that equal values give equal bytes. Refuses NaN and infinity."""
    write_text(path, json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file written by `write_json`."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_table(path: Path, table: "pa.Table") -> None:
    """Writes an Arrow table as zstd parquet; equal tables give equal bytes."""
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=1 << 16)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's sorted (relative name, file hash) list; hexadecimal."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
