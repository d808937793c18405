"""No judge: for losses that learn from no scores."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section
from pipeline.errors import UserError
from pipeline.judges import Context, Judge, Judged


class Settings(Section):
    """The dependency, which every recipe has."""

    source_of: ClassVar[str] = "start"
    reads: str = Field(examples=["models/base"])
    """models/ and the recipe's `from`: nothing else is read."""


def build(_settings: Settings, context: Context) -> "NoJudge":
    """A judge without scores."""
    return NoJudge(context.where)


class NoJudge(Judge):
    """Refuses to score."""

    def __init__(self, where: str) -> None:
        self._where = where

    def scores(self, judged: Sequence[Judged]) -> Tensor:
        """Raises UserError."""
        raise UserError(
            f"params.yaml: {self._where}.name is 'none', and {len(judged)} answers need a score; name a judge: a file "
            "of pipeline/judges"
        )
