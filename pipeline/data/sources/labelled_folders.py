"""Text files in one folder per label, as in `aclImdb/pos/12.txt`: a file's label is the name of its folder."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.recipe import Kind, Part
from pipeline.config.section import Section
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from pipeline.data.ledger import RowLog


class Settings(Section):
    """Path of the files, and how their text becomes records. Paths are relative to the project's root."""

    path: str
    """A pattern in inputs/ whose files lie in a folder per label: `inputs/reviews/**/*.txt`."""
    sha256: None
    """null: DVC tracks inputs/, and a pattern's files are not hashed one by one."""
    kind: Literal["labelled", "documents"]
    """labelled: text and label; documents: the texts alone, as running text to pretrain on."""
    columns: dict[str, str]
    """Always {}: text files have no columns."""
    labels: dict[str, str]
    """The folder's name -> label; empty takes the names as they are, else a folder that is not named here is
    rejected."""
    language: Annotated[str, Field(pattern="^(auto|[a-z]{2,3})$")]
    """ISO 639-1, und, or auto: guessed for each record."""
    split: Literal["train", "validation", "test"] | None
    """Pins every record to a split; null: by the hash of its content."""
    format: Part
    """Format txt and its settings; {documents: file} makes one record of each file."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        from pipeline.data.formats._shape import Shape
        from pipeline.data.sources._inputs import fixed_part, require_inputs

        if self.columns or self.format.name != "txt":
            raise ValueError("labelled_folders reads format txt, which has no columns; write columns: {}")
        Shape.of(self, "")
        self.format.settings("data/formats", "format")
        require_inputs(fixed_part(self.path))
        return self


def read(settings: Settings, entry: str, log: "RowLog") -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of the files' records in the order of their names.

    Raises:
        UserError: no file matches, or one that is empty or not valid text.
    """
    from pipeline.config import plugins
    from pipeline.data.formats._shape import BadRow, Shape
    from pipeline.data.formats._text import File
    from pipeline.data.sources._records import tables

    where = f"download.sources.{entry}"
    files = _files(settings, where)
    shape = Shape.of(settings, where)
    plain = Shape(where, "documents", {}, {}, settings.language, settings.split)
    text_format = settings.format.settings("data/formats", f"{where}.format")
    reader = plugins.load("data/formats", settings.format.name)
    for name, path in files.items():
        rows = reader.rows(File(path, str(path), name), text_format, plain)
        if settings.kind == "labelled":
            label = path.parent.name
            rows = ((line, row if isinstance(row, BadRow) else (*row, label)) for line, row in rows)
        yield from tables(rows, shape, name, str(path), log)


def provenance(settings: Settings) -> dict[str, Any]:
    """Address (the path in params.yaml) and the SHA-256 of the sorted (name, SHA-256) list of the files."""
    import hashlib

    from pipeline.files import sha256_of

    hashed = (f"{name}\0{sha256_of(path)}\n" for name, path in _files(settings, "path").items())
    return {
        "address": settings.path,
        "sha256": hashlib.sha256("".join(hashed).encode()).hexdigest(),
        "revision": None,
    }


def _files(settings: Settings, where: str) -> "dict[str, Path]":
    """The files by their names below the pattern's fixed part, sorted."""
    import glob
    from pathlib import Path

    from pipeline.data.sources._inputs import fixed_part, require_inputs

    top = fixed_part(settings.path)
    paths = (Path(name) for name in glob.glob(settings.path, recursive=True))
    files = {path.relative_to(top).as_posix(): path for path in paths if path.is_file()}
    if not files:
        raise UserError(f"{settings.path}: no file matches; correct {where}.path")
    for path in files.values():
        require_inputs(path.parent)
    return dict(sorted(files.items()))
