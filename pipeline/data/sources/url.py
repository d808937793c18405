"""A file from the web, fetched once, checked against its sha256 and then read like a local file.

Streamed to .tohum/downloads/<sha256>.part and renamed when the hash is right; a broken connection is
continued where it broke (HTTP Range, RFC 9110 section 14), with growing pauses between attempts.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.recipe import Kind, Part
from pipeline.config.section import Count, Section
from pipeline.paths import DOWNLOADS

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.data.ledger import RowLog


class Settings(Section):
    """Where the file is, and what its rows become (those fields mean what they mean in `files`)."""

    url: Annotated[str, Field(pattern="^https?://[^/]+")]
    """Its last part names the file: one that ends in .gz is decompressed."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the file as it is served."""
    retries: Count
    """Further attempts after a failed one, with pauses of 1, 2, 4, ... seconds (at most 60)."""
    timeout_s: Annotated[float, Field(gt=0)]
    """Longest silence of the server before an attempt counts as failed."""
    kind: Kind
    columns: dict[str, str]
    labels: dict[str, str]
    language: Annotated[str, Field(pattern="^(auto|[a-z]{2,3})$")]
    split: Literal["train", "validation", "test"] | None
    format: Part

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        from pipeline.data.formats._shape import Shape

        Shape.of(self, "")
        self.format.settings("data/formats", "format")
        return self


def read(settings: Settings, entry: str, log: "RowLog") -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of the file's records; fetches it first unless it is there already.

    Raises:
        UserError: it cannot be fetched, has another sha256, or cannot be read as its format says.
    """
    from pipeline.data.sources._fetch import fetch, file_name
    from pipeline.data.sources._files import File, Shape, records

    path = fetch(
        settings.url,
        settings.sha256,
        DOWNLOADS,
        retries=settings.retries,
        timeout_s=settings.timeout_s,
        where=f"download.sources.{entry}",
    )
    shape = Shape.of(settings, f"download.sources.{entry}")
    yield from records(File(path, settings.url, file_name(settings.url)), settings.format, shape, log)


def provenance(settings: Settings) -> dict[str, Any]:
    """The address and the sha256 that was checked."""
    return {"address": settings.url, "sha256": settings.sha256, "revision": None}
