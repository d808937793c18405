"""The user's own files: txt, csv, tsv, json, jsonl and parquet, each also as .gz (parquet is compressed
inside).

One entry reads one kind of record from one file, or from all files of a pattern, in the order of their names.
"""

import glob
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.recipe import Kind, Part
from pipeline.config.section import Section
from pipeline.data.sources._inputs import fixed_part, require_inputs
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.data.ledger import RowLog


class Settings(Section):
    """Which files, and what their rows become. Relative paths start at the project's root."""

    path: str
    """A file, or a pattern: `inputs/*.txt`, `inputs/**/*.jsonl.gz`."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | dict[str, str] | None
    """Of the file as it is on disk, checked before use; with a pattern {file name: sha256} for every file;
    null, for files in inputs/ alone, checks nothing."""
    kind: Kind
    columns: dict[str, str]
    """Our column -> theirs, where names differ; also language and split may be read from a column. `input`
    may be absent from a file of instructions or preferences; it is then empty."""
    labels: dict[str, str]
    """Their label -> ours; empty takes labels as they are. A label that is not named here is rejected."""
    language: Annotated[str, Field(pattern="^(auto|[a-z]{2,3})$")]
    """ISO 639-1, und, or auto: guessed for each record."""
    split: Literal["train", "validation", "test"] | None
    """Pins every record to a split; null lets the hash of its content decide."""
    format: Part
    """A file in pipeline/data/formats and its settings: {name: jsonl}."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        from pipeline.data.formats._shape import Shape

        Shape.of(self, "")
        self.format.settings("data/formats", "format")
        return self

    @model_validator(mode="after")
    def _changes_are_seen(self) -> "Settings":
        from pipeline.data.sources._inputs import fixed_part, require_inputs

        if self.sha256 is None:
            require_inputs(fixed_part(self.path))
        return self


def read(settings: Settings, entry: str, log: "RowLog") -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of the files' records, file after file.

    Raises:
        UserError: no such file, a wrong sha256, or a file that cannot be read as its format says.
    """
    from pipeline.data.sources._files import File, Shape, records

    found = _found(settings.path, f"download.sources.{entry}.path")
    _check(found, settings.sha256, entry)
    shape = Shape.of(settings, f"download.sources.{entry}")
    for name, path in found.items():
        before = _stamp(path)
        yield from records(File(path, str(path), name), settings.format, shape, log)
        if _stamp(path) != before:
            raise UserError(f"{path}: changed while it was read; run again when nothing writes to it")


def provenance(settings: Settings) -> dict[str, Any]:
    """Address (the path as params.yaml says it) and the sha256 of the file, or of the sorted (name, sha256)
    list."""
    found = _found(settings.path, "path")
    hashes = {name: _sha256(path, _stamp(path)) for name, path in found.items()}
    combined = hashlib.sha256("".join(f"{name}\0{one}\n" for name, one in hashes.items()).encode()).hexdigest()
    sha256 = next(iter(hashes.values())) if len(hashes) == 1 else combined
    return {"address": settings.path, "sha256": sha256, "revision": None}


def _found(pattern: str, where: str) -> dict[str, Path]:
    """The files a path or pattern means, by their name below the part of the pattern that is fixed,
    sorted."""
    path = Path(pattern)
    if path.is_dir():
        raise UserError(
            f"{pattern}: is a folder; expected a file or a pattern such as {pattern.rstrip('/')}/*.txt in {where}"
        )
    if path.is_file():
        return {path.name: path}
    if not glob.has_magic(pattern):
        beside = sorted(p.name for p in path.parent.glob("*") if p.is_file())[:20] if path.parent.is_dir() else []
        stands = f"in {path.parent} stand: {beside}" if beside else f"there is no folder {path.parent}, or it is empty"
        raise UserError(f"{pattern}: no such file; {stands}; correct {where}")
    fixed = fixed_part(pattern)
    files = (Path(name) for name in glob.glob(pattern, recursive=True))
    found = {file.relative_to(fixed).as_posix(): file for file in files if file.is_file()}
    if not found:
        raise UserError(f"{pattern}: no file has such a name; correct {where}")
    return dict(sorted(found.items()))


def _check(found: dict[str, Path], expected: str | dict[str, str] | None, entry: str) -> None:
    if expected is None:
        for path in found.values():  # a wildcard may lead through a link to a folder
            require_inputs(path.parent)
        return
    if isinstance(expected, str):
        expected = dict.fromkeys(found, expected) if len(found) == 1 else {}
    if set(expected) != set(found):
        raise UserError(
            f"download.sources.{entry}.sha256: names {sorted(expected)}; expected one for each of "
            f"{list(found)}, as {{file name: sha256}}"
        )
    for name, path in found.items():
        if (actual := _sha256(path, _stamp(path))) != expected[name]:
            raise UserError(
                f"{path}: sha256 is {actual}; expected {expected[name]}: restore the file, or if the "
                f"change is wanted, write the new hash to download.sources.{entry}.sha256"
            )


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache
def _sha256(path: Path, stamp: tuple[int, int, int]) -> str:
    from pipeline.files import sha256_of

    return sha256_of(path)
