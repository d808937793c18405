"""The true utility of an answer in the embedded world with a taste (download.sources.world.taste).

Only the embedded world knows the truth, so this judge is for measures, and for claims that say that they train on it:
"learned from preferences" never does.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section
from pipeline.data.sources.world import taste
from pipeline.judges import Context, Judge, Judged


class Settings(Section):
    """The dependency, which every judge has."""

    source_of: ClassVar[str] = "start"
    reads: str = Field(examples=["models/base"])
    """models/base, or models/ and the recipe's `from`: nothing else is read."""


def build(_settings: Settings, _context: Context) -> "World":
    """The judge."""
    return World()


class World(Judge):
    """Utilities from 0 to 1."""

    def scores(self, judged: Sequence[Judged]) -> Tensor:
        """scores_E of the answers' texts, by request and language of their records."""
        return torch.tensor(
            [taste.utility(one.record["instruction"], one.text, one.record["language"]).value for one in judged]
        )
