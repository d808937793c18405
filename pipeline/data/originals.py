"""Texts to change and the interface of augmentations, between the source `augmented` and pipeline/data/augment."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.data.formats._shape import BadRow
from pipeline.seeds import seed_for

Changed = str | BadRow | None


class Original(NamedTuple):
    """A text to change."""

    id: str
    """The record's."""
    language: str
    """ISO 639-1, or und."""
    text: str


@dataclass(frozen=True)
class Context:
    """Arguments of `build` besides settings."""

    seed: int
    """Of all draws."""
    where: str
    """The section of params.yaml in errors, such as download.sources.noisy.augment[0]."""

    def draws(self, name: str, original: Original) -> random.Random:
        """The generator of one record's draws. Only its `random()` is equal in all versions of Python."""
        return random.Random(seed_for(self.seed, "augment", name, original.id))


class Augmentation(Protocol):
    """What `build` gives."""

    def texts(self, originals: Iterable[Original]) -> Iterator[Changed]:
        """One text for each original, in order. Raises UserError where no text can be made at all."""
        ...
