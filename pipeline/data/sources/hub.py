"""A dataset of the Hugging Face hub, streamed and pinned to a commit; no code of the dataset is run."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.recipe import Kind
from pipeline.config.section import Columns, Positive, Section
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.data.formats._shape import Row, Shape
    from pipeline.data.ledger import RowLog

_BATCH_ROWS = 500


class Settings(Section):
    """Name and commit of the dataset, and the mapping of its rows (kind to split: as in `files`)."""

    repo: Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)?$")]
    """Name on the hub: owner/name."""
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    """Full hash of the commit; a branch such as main moves, so it is refused."""
    config_name: str | None
    """Configuration of the dataset; null where it has only one."""
    part: str
    """Split of the dataset to read."""
    limit: Positive | None
    """Most rows to read; null reads all."""
    kind: Kind
    """Kind of the records."""
    columns: Columns
    """Our column -> the dataset's, where names differ, with templates, roles and `extra` as in `files`."""
    labels: dict[str, str]
    """The dataset's label -> ours; empty takes labels as they are, else a label that is not named here is rejected."""
    label_form: Literal["one", "several", "number"] = "one"
    """Content of the label column: one label, several (a list, or text with `label_separator`; for multi_label), or
    a number (for task regress)."""
    label_separator: str | None = None
    """Separator of several labels in one text, such as a comma; null: labels are lists."""
    language: Annotated[str, Field(pattern="^(auto|[a-z]{2,3})$")]
    """ISO 639-1, und, or auto: guessed for each record."""
    split: Literal["train", "validation", "test"] | None
    """Pins every record to a split; null: by the hash of its content."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        from pipeline.data.formats._shape import Shape

        Shape.of(self, "")
        return self


def read(settings: Settings, entry: str, log: "RowLog") -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of the dataset's records, streamed.

    Raises:
        UserError: no such dataset, revision, configuration, part or column; no connection.
    """
    from pipeline.data.formats._shape import Shape
    from pipeline.data.sources._records import tables

    if Path(settings.repo).exists():
        raise UserError(
            f"download.sources.{entry}.repo: a local file or folder {settings.repo} exists and would be "
            "read in place of the hub's dataset; use source files for it, or move it away"
        )
    shape = Shape.of(settings, f"download.sources.{entry}")
    yield from tables(_rows(settings, shape), shape, f"{settings.repo}/{settings.part}", settings.repo, log)


def provenance(settings: Settings) -> dict[str, Any]:
    """Name on the hub and commit, which determines the bytes."""
    return {"address": f"hf://datasets/{settings.repo}", "sha256": None, "revision": settings.revision}


def _rows(settings: Settings, shape: "Shape") -> "Iterator[Row]":
    from pipeline.data.formats._objects import object_rows

    return object_rows(_objects(settings, shape.where), shape, f"{settings.repo}@{settings.revision[:8]}")


def _objects(settings: Settings, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows by their columns, numbered from 1 on."""
    number = 0
    for batch in _batches(settings, where):
        for values in zip(*batch.values(), strict=True):
            number += 1
            yield number, dict(zip(batch, values, strict=True))


def _batches(settings: Settings, where: str) -> Iterator[dict[str, list[Any]]]:
    """Batches of rows as columns. Raises UserError for the errors of the hub's client."""
    import pyarrow as pa
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        stream = load_dataset(
            settings.repo,
            name=settings.config_name,
            revision=settings.revision,
            split=settings.part,
            streaming=True,
        )
        if settings.limit is not None:
            stream = stream.take(settings.limit)
        yield from stream.iter(_BATCH_ROWS)
    except (DatasetsError, pa.ArrowException, OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise  # an error of this machine's disk, not of the hub
        message = (str(error) or "no message").splitlines()[0]
        raise UserError(
            f"{settings.repo}@{settings.revision[:8]}: cannot be read from the hub "
            f"({type(error).__name__}: {message[:200]}); check repo, revision, "
            f"config_name and part in {where}, your connection, and your right to read it"
        ) from None
