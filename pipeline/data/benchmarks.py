"""Items of published benchmarks, read from pinned files below inputs/.

    for item in items("inputs/BLiMP.zip", "172a1a71..."):
        item.text("sentence_good", "good_sentence"), item.place

A path is a file, a folder or a zip archive. Its files end in jsonl, json, csv, tsv or parquet and are read by the
strict readers of pipeline/data/formats: a row that cannot be read is an error, as a score over fewer items would be
another benchmark's.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from pipeline import files
from pipeline.data.formats import csv, json, jsonl, parquet, tsv
from pipeline.data.formats._shape import AllColumns, BadRow, Row
from pipeline.data.formats._text import File, line_parts
from pipeline.errors import UserError

FOLDER = "inputs"
_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


class Item(NamedTuple):
    """A row of a benchmark's file."""

    place: str
    """File and line, for errors."""
    file: str
    """Name of the file without its ending."""
    row: Mapping[str, Any]

    def text(self, *names: str) -> str:
        """The text in the first of these fields that the row has. Raises UserError for none, or no text."""
        value = self.value(*names)
        if not isinstance(value, str):
            raise self.fault(f"{self._named(names)} is {value!r:.60}", "a text")
        return value

    def texts(self, *names: str) -> list[str]:
        """The list of texts in the first of these fields. Raises UserError for none, or anything else."""
        value = self.value(*names)
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.fault(f"{self._named(names)} is {value!r:.60}", "a list of texts")
        return value

    def value(self, *names: str) -> Any:
        """The value of the first of these fields that the row has. Raises UserError for none."""
        for name in names:
            if name in self.row:
                return self.row[name]
        raise self.fault(f"no field {' or '.join(names)}; found: {', '.join(map(str, self.row))}", "the fields named")

    def fault(self, found: str, expected: str) -> UserError:
        """The error of a row that does not fit its benchmark."""
        return UserError(f"{self.place}: {found}; expected {expected}: take the file as it is published")

    def _named(self, names: Sequence[str]) -> str:
        return next(name for name in names if name in self.row)


def items(path: str, sha256: str) -> list[Item]:
    """All rows of a pinned file, folder or zip archive, files in the order of their names.

    Raises:
        UserError: a path outside inputs/; another content than the pinned one; no file, or none with a known ending; a
            row that cannot be read.
    """
    place = Path(path)
    if place.is_absolute() or ".." in place.parts or place.parts[:1] != (FOLDER,):
        raise UserError(f"path is {path!r}; expected a path below {FOLDER}/, which DVC keeps: copy the file there")
    if not place.exists():
        raise UserError(f"{path}: no such file; copy the benchmark there, then run: dvc add {FOLDER}")
    found = files.sha256_of(place)
    if found != sha256:
        raise UserError(
            f"{path}: its SHA-256 is {found}, and params.yaml pins {sha256}; restore the file, or set sha256: {found} "
            "if the change is meant"
        )
    members = _members(place)
    if not members:
        raise UserError(f"{path}: holds no file that ends in {', '.join(_ENDINGS)}; expected rows of a benchmark")
    return [item for file in members for item in _items(file)]


def _members(place: Path) -> list[File]:
    """The files with rows."""
    if place.is_dir():
        found = sorted(path for path in place.rglob("*") if path.is_file() and _has_rows(path.relative_to(place)))
        return [File(path, path.as_posix(), path.name) for path in found]
    if place.suffix != ".zip":
        return [File(place, place.as_posix(), place.name)] if place.name.endswith(_ENDINGS) else []
    try:
        with zipfile.ZipFile(place) as archive:
            names = sorted(name for name in archive.namelist() if _has_rows(PurePosixPath(name)))
    except zipfile.BadZipFile as error:
        raise UserError(f"{place}: no zip archive ({error}); fetch it again") from None
    return [File(place, f"{place.as_posix()}: {name}", PurePosixPath(name).name, name) for name in names]


def _has_rows(path: PurePosixPath | Path) -> bool:
    """Whether it is a file of rows, and none that a system has added (`__MACOSX/._x.csv`)."""
    return path.name.endswith(_ENDINGS) and not any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _items(file: File) -> Iterator[Item]:
    shape = AllColumns()
    stem = file.name.rsplit(".", 1)[0]
    for number, values in _rows(file, shape):
        if isinstance(values, BadRow):
            raise UserError(f"{file.shown}: line {number}: {values.reason}: {values.detail}; fetch the file again")
        is_object = len(values) == 1 and isinstance(values[0], dict)
        row = values[0] if is_object else dict(zip(shape.names, values, strict=True))
        yield Item(f"{file.shown}: line {number}", stem, row)


def _rows(file: File, shape: AllColumns) -> Iterator[Row]:
    """Rows by the reader of the file's ending."""
    match file.name.rsplit(".", 1)[1]:
        case "jsonl":
            return jsonl.rows(file, jsonl.Settings(encoding="utf-8"), shape)
        case "json":
            return json.rows(file, json.Settings(encoding="utf-8", records=None), shape)
        case "parquet":
            return parquet.rows(file, parquet.Settings(), shape)
        case "tsv":
            return tsv.rows(file, tsv.Settings(encoding="utf-8", header=True, quoting="standard"), shape)
        case _:
            return csv.rows(file, _table(file), shape)


def _table(file: File) -> csv.Settings:
    """The notation of a csv file: the delimiter that its header has most often."""
    header = next((line for _, line in line_parts(file, "utf-8")), "")
    delimiters: tuple[Literal[",", ";", "|"], ...] = (",", ";", "|")
    delimiter = max(delimiters, key=header.count)
    return csv.Settings(encoding="utf-8", delimiter=delimiter, header=True, quoting="standard")
