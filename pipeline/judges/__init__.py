"""Judges: scores of answers, from which a loss with the role `judge` learns. Each file is one judge.

A file has `build(settings, context) -> Judge`. Its Settings have `reads`: the file or folder that the judge depends on,
a dependency of the stage in dvc.yaml.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.config.recipe import Compute
from pipeline.contracts import Judged, TaskProtocol
from pipeline.tokenizer import Tokenizer

__all__ = ["Context", "Judge", "Judged"]


@dataclass(frozen=True)
class Context:
    """Everything that a judge is built from besides its settings."""

    tokenizer: Tokenizer
    """Of the model whose answers are judged."""
    compute: Compute
    task: TaskProtocol
    where: str
    """The judge's section of params.yaml, for errors: `finetune.tuned.judge`."""


class Judge(ABC):
    """Scores answers."""

    @abstractmethod
    def scores(self, judged: Sequence[Judged]) -> Tensor:
        """scores_E, float32; higher is better. The score of an answer does not depend on the others.

        Raises:
            UserError: an answer that cannot be scored; names its record.
        """
