"""A file from the web: downloaded once, checked against its SHA-256, then read like a local file.

Streamed to .tohum/downloads/<sha256>.part and renamed when the hash is right; a broken download is resumed where it
stopped (HTTP Range, RFC 9110 section 14), with exponential backoff.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.recipe import Kind, Part
from pipeline.config.section import Columns, Count, Section
from pipeline.paths import DOWNLOADS

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.data.ledger import RowLog


class Settings(Section):
    """Address of the file, and the mapping of its rows (kind to format: as in `files`)."""

    url: Annotated[str, Field(pattern="^https?://[^/]+")]
    """Its last part is the file's name; one that ends in .gz is decompressed."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the file as the server sends it."""
    retries: Count
    """Further attempts after a failed one, with pauses of 1, 2, 4, ... seconds (at most 60)."""
    timeout_s: Annotated[float, Field(gt=0)]
    """Seconds without a byte from the server after which an attempt has failed."""
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


def read(settings: Settings, entry: str, log: "RowLog") -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of the file's records; downloads it first unless it is there.

    Raises:
        UserError: it cannot be downloaded, has another SHA-256, or is not valid in its format.
    """
    from pipeline.data.sources._fetch import Download, fetch, file_name
    from pipeline.data.sources._files import File, Shape, records

    where = f"download.sources.{entry}"
    download = Download(settings.url, settings.sha256, settings.retries, settings.timeout_s, where)
    path = fetch(download, DOWNLOADS)
    shape = Shape.of(settings, where)
    yield from records(File(path, settings.url, file_name(settings.url)), settings.format, shape, log)


def provenance(settings: Settings) -> dict[str, Any]:
    """Address and checked SHA-256."""
    return {"address": settings.url, "sha256": settings.sha256, "revision": None}
