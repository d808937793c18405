"""Records of the data: the examples are those of the training split, in the order of the recipe's sampler."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from pipeline.config.section import Section
from pipeline.contracts import Batch, Examples, TaskProtocol
from pipeline.experience import Context, Experience, HeldOut, MicroBatch, batch_of, micro_rows, ranks_share
from pipeline.model.gpt import GPT
from pipeline.ordering import Ordering


class Settings(Section):
    """No settings."""


def build(_settings: Settings, context: Context) -> "Records":
    """The experience. The loss computes its columns for both splits here, by the weights before the first update."""
    learner, loss = context.learner, context.loss
    return Records(
        learner.model,
        learner.task,
        learner.examples,
        context.ordering,
        context.micro,
        context.seed,
        loss.columns(learner.model, learner.examples),
        loss.columns(learner.model, context.validation),
    )


@dataclass
class Records(Experience):
    """The training examples."""

    model: GPT
    """Only its device matters."""
    task: TaskProtocol
    examples: Examples
    ordering: Ordering
    micro: Callable[[int], range]
    """Number of an update -> the numbers of its micro-batches."""
    seed: int
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    """Of the loss, by name, for the training examples."""
    held_out_columns: Mapping[str, Tensor] = field(default_factory=dict)
    """For the validation examples."""

    def batches(self, number: int, rank: int = 0, world: int = 1) -> list[MicroBatch]:
        """The sampler's micro-batches of the update."""
        drawn = micro_rows(self.ordering, self.micro(number), len(self.examples), self.seed)
        shares = [ranks_share(rows, rank, world) for rows in drawn]
        return [
            MicroBatch(rows, lambda rows=rows: batch_of(self.model, self.task, self.examples, rows, self.columns))  # type: ignore[misc]
            for rows in shares
            if len(rows)
        ]

    def seen(self, updates: int) -> int:
        """Examples of their micro-batches; with Poisson sampling the expected number."""
        return self.micro(updates).start * self.ordering.batch_size

    def held_out(self, model: GPT, examples: Examples, batches: int) -> HeldOut:
        """Consecutive batches of the validation split."""
        return HeldOut(self._in_order(model, examples, batches), {})

    def _in_order(self, model: GPT, examples: Examples, batches: int) -> Iterator[Batch]:
        size = self.ordering.batch_size
        for first in range(0, min(len(examples), batches * size), size):
            rows = np.arange(first, min(first + size, len(examples)))
            yield batch_of(model, self.task, examples, rows, self.held_out_columns)
