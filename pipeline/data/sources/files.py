"""Local files: txt, csv, tsv, json, jsonl (each also as .gz), parquet, arrow and xlsx.

An entry reads one kind of record from one file, or from all files of a pattern in the order of their names.
"""

import glob
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.recipe import Kind, Part
from pipeline.config.section import Columns, Section
from pipeline.data.sources._inputs import fixed_part, require_inputs
from pipeline.errors import UserError
from pipeline.files import sha256_of

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.data.ledger import RowLog


class Settings(Section):
    """Path of the files, and the mapping of their rows to records. Paths are relative to the project's root."""

    path: str
    """A file, or a pattern: `inputs/*.txt`, `inputs/**/*.jsonl.gz`."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | dict[str, str] | None
    """Of the file on disk, checked before use; with a pattern, {file name: sha256} for every file. null checks nothing
    and is allowed for files in inputs/ only."""
    kind: Kind
    """Kind of the records."""
    columns: Columns
    """Our column -> the file's, where names differ, or a template of several for a text, `"{title}\\n\\n{body}"`, in
    which a line is left out where all of its columns are empty. language and split may also be read from a column. A
    file of instructions or preferences may lack `input`, which is then empty. Records also keep `group` (a unit that
    belongs in one split: customer, thread), `time` (ISO 8601), `consent` (the basis of each record; empty: the
    source's) and further columns: `{group: customer, time: created_at, extra: [region, product]}`."""
    labels: dict[str, str]
    """The file's label -> ours; empty takes labels as they are, else a label that is not named here is rejected."""
    label_form: Literal["one", "several", "number"] = "one"
    """Content of the label column: one label, several (a list, or text with `label_separator`; for multi_label), or
    a number (for task regress)."""
    label_separator: str | None = None
    """Separator of several labels in one text, such as a comma; null: labels are lists."""
    language: Annotated[str, Field(pattern="^(auto|[a-z]{2,3})$")]
    """ISO 639-1, und, or auto: guessed for each record."""
    split: Literal["train", "validation", "test"] | None
    """Pins every record to a split; null: by the hash of its content."""
    format: Part
    """A file in pipeline/data/formats and its settings: {name: jsonl, encoding: utf-8}."""

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
        UserError: no such file, a wrong SHA-256, or a file that is not valid in its format.
    """
    from pipeline.data.sources._files import File, Shape, records

    paths = _paths(settings.path, f"download.sources.{entry}.path")
    _check(paths, settings.sha256, entry)
    shape = Shape.of(settings, f"download.sources.{entry}")
    for name, path in paths.items():
        before = _stamp(path)
        yield from records(File(path, str(path), name), settings.format, shape, log)
        if _stamp(path) != before:
            raise UserError(f"{path}: changed while it was read; run again when nothing writes to it")


def provenance(settings: Settings) -> dict[str, Any]:
    """Address (the path in params.yaml) and SHA-256 of the file, or of the sorted (name, SHA-256) list of several."""
    hashes = {name: sha256_of(path) for name, path in _paths(settings.path, "path").items()}
    combined = hashlib.sha256("".join(f"{name}\0{sha256}\n" for name, sha256 in hashes.items()).encode()).hexdigest()
    sha256 = next(iter(hashes.values())) if len(hashes) == 1 else combined
    return {"address": settings.path, "sha256": sha256, "revision": None}


def _paths(pattern: str, where: str) -> dict[str, Path]:
    """The files of a path or pattern, sorted by their names below the pattern's fixed part."""
    path = Path(pattern)
    if path.is_dir():
        raise UserError(
            f"{pattern}: is a folder; expected a file or a pattern such as {pattern.rstrip('/')}/*.txt in {where}"
        )
    if path.is_file():
        return {path.name: path}
    if not glob.has_magic(pattern):
        names = sorted(p.name for p in path.parent.glob("*") if p.is_file())[:20] if path.parent.is_dir() else []
        listed = f"{path.parent} contains {names}" if names else f"there is no folder {path.parent}, or it is empty"
        raise UserError(f"{pattern}: no such file; {listed}; correct {where}")
    fixed = fixed_part(pattern)
    files = (Path(name) for name in glob.glob(pattern, recursive=True))
    paths = {file.relative_to(fixed).as_posix(): file for file in files if file.is_file()}
    if not paths:
        raise UserError(f"{pattern}: no file matches; correct {where}")
    return dict(sorted(paths.items()))


def _check(paths: dict[str, Path], expected: str | dict[str, str] | None, entry: str) -> None:
    if expected is None:
        for path in paths.values():  # a wildcard may match a link to another folder
            require_inputs(path.parent)
        return
    if isinstance(expected, str):
        expected = dict.fromkeys(paths, expected) if len(paths) == 1 else {}
    if set(expected) != set(paths):
        raise UserError(
            f"download.sources.{entry}.sha256: names {sorted(expected)}; expected one for each of "
            f"{list(paths)}, as {{file name: sha256}}"
        )
    for name, path in paths.items():
        if (actual := sha256_of(path)) != expected[name]:
            raise UserError(
                f"{path}: sha256 is {actual}; expected {expected[name]}: restore the file, or if the "
                f"change is intended, write the new hash to download.sources.{entry}.sha256"
            )


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
