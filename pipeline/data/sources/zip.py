"""Members of a zip archive, each read like a local file, without unpacking the archive."""

import fnmatch
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.recipe import Kind, Part
from pipeline.config.section import Columns, Section
from pipeline.data.sources._inputs import require_inputs
from pipeline.errors import UserError
from pipeline.files import sha256_of

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.data.ledger import RowLog


class Settings(Section):
    """The archive and its members, and the mapping of their rows (kind to format: as in `files`)."""

    path: str
    """The archive, relative to the project's root."""
    members: str
    """Name of a member, or a pattern such as `*.csv` or `train/*.jsonl.gz`, in which * also matches /."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    """Of the archive, checked before use. null checks nothing and is allowed for archives in inputs/ only."""
    kind: Kind
    """Kind of the records."""
    columns: Columns
    """Our column -> the file's, where names differ, with templates, roles and `extra` as in `files`."""
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
        from pathlib import Path

        from pipeline.data.sources._inputs import require_inputs

        if self.sha256 is None:
            require_inputs(Path(self.path).parent)
        return self


def read(settings: Settings, entry: str, log: "RowLog") -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of the members' records, member after member in the order of their names.

    Raises:
        UserError: no such archive or member, a wrong SHA-256, or a member that is not valid in its format.
    """
    from pipeline.data.sources._files import File, Shape, records

    where, path = f"download.sources.{entry}", Path(settings.path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; correct {where}.path")
    if settings.sha256 is None:
        require_inputs(path.parent)
    elif (actual := sha256_of(path)) != settings.sha256:
        raise UserError(f"{path}: sha256 is {actual}; expected {settings.sha256}: restore the file, or correct {where}")
    names = members(path)
    chosen = [name for name in names if fnmatch.fnmatchcase(name, settings.members)]
    if not chosen:
        raise UserError(f"{path}: no member matches {settings.members!r}; found: {names[:20]}; correct {where}.members")
    shape = Shape.of(settings, where)
    for name in chosen:
        yield from records(File(path, f"{path}!{name}", name, name), settings.format, shape, log)


def members(path: Path) -> list[str]:
    """Sorted names of the files in an archive, without those that macOS adds and hidden ones.

    Raises:
        UserError: no zip archive, or a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path}: not a whole zip archive ({str(error)[:80]}); fetch or write it again") from None
    hidden = ("__MACOSX", ".")
    return sorted(name for name in names if not any(part.startswith(hidden) for part in name.split("/")))


def provenance(settings: Settings) -> dict[str, Any]:
    """Address (the path in params.yaml) and SHA-256 of the archive."""
    return {"address": settings.path, "sha256": sha256_of(Path(settings.path)), "revision": None}
