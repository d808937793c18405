"""A data set of the Hugging Face hub, streamed and pinned to a commit; no code of the data set is ever
run."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.recipe import Kind
from pipeline.config.section import Positive, Section
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.data.formats._shape import Row, Shape
    from pipeline.data.ledger import RowLog

_BATCH_ROWS = 500


class Settings(Section):
    """Which data set, and what its rows become (kind to split mean what they mean in `files`)."""

    repo: Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)?$")]
    """As the hub names it: owner/name."""
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    """The commit's full hash; a branch such as main moves, so it is refused."""
    config_name: str | None
    """Which of the data set's configurations; null where it has one."""
    part: str
    """Which of the data set's own splits to read."""
    limit: Positive | None
    """Read no more than this many rows; null reads all."""
    kind: Kind
    columns: dict[str, str]
    labels: dict[str, str]
    language: Annotated[str, Field(pattern="^(auto|[a-z]{2,3})$")]
    split: Literal["train", "validation", "test"] | None

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        from pipeline.data.formats._shape import Shape

        Shape.of(self, "")
        return self


def read(settings: Settings, entry: str, log: "RowLog") -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of the data set's records, fetched as they are read.

    Raises:
        UserError: no such data set, revision, configuration, part or column; no connection.
    """
    from pipeline.data.formats._shape import Shape
    from pipeline.data.sources._records import tables

    if Path(settings.repo).exists():
        raise UserError(
            f"download.sources.{entry}.repo: a file or folder {settings.repo} stands here and would be "
            "read in place of the hub's; use source files for it, or move it away"
        )
    shape = Shape.of(settings, f"download.sources.{entry}")
    yield from tables(_rows(settings, shape), shape, f"{settings.repo}/{settings.part}", settings.repo, log)


def provenance(settings: Settings) -> dict[str, Any]:
    """The data set's name on the hub and its commit, which stands for its bytes."""
    return {"address": f"hf://datasets/{settings.repo}", "sha256": None, "revision": settings.revision}


def _rows(settings: Settings, shape: "Shape") -> "Iterator[Row]":
    from pipeline.data.formats._shape import ABSENT

    number = 0
    places: list[int | None] | None = None
    for batch in _batches(settings, shape.where):
        names = list(batch)
        places = places or shape.places(names, f"{settings.repo}@{settings.revision[:8]}")
        columns = [None if place is None else batch[names[place]] for place in places]
        for row in range(len(batch[names[0]])):
            number += 1
            yield number, tuple(ABSENT if column is None else column[row] for column in columns)


def _batches(settings: Settings, where: str) -> Iterator[dict[str, list[Any]]]:
    """Batches of rows as columns; what the hub's client raises becomes one sentence."""
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
            raise  # this machine's disk, not the hub
        found = (str(error) or "no further word").splitlines()[0]
        raise UserError(
            f"{settings.repo}@{settings.revision[:8]}: cannot be read from the hub "
            f"({type(error).__name__}: {found[:200]}); check repo, revision, "
            f"config_name and part in {where}, your connection, and your right to read it"
        ) from None
