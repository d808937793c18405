"""Experience: examples that a training learns from. Each file is one kind: `build(settings, context) -> Experience`.

`records` are those of the data; `rollouts` are answers that the model draws itself while it is trained, in blocks of
some updates. The training loop asks for the micro-batches of an update and knows no more of either.

The examples of an update are a pure function of (weights, buffer, seed, number of the update). The buffer is part of
the saved training state, so a run that is killed inside a block ends with the same bits.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.contracts import Batch, Examples, Learner, Rollout, TaskProtocol, on_device
from pipeline.losses import Loss
from pipeline.model.gpt import GPT
from pipeline.ordering import Ordering

__all__ = ["Context", "Experience", "HeldOut", "MicroBatch", "Rollout", "batch_of", "micro_rows", "ranks_share"]

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Context:
    """Everything that an experience is built from besides its settings."""

    learner: Learner
    """Model, task and the training examples (with rollouts: prompts)."""
    ordering: Ordering
    """Examples of every micro-batch."""
    loss: Loss
    micro: Callable[[int], range]
    """Number of an update (from 0) -> the numbers of its micro-batches."""
    seed: int
    validation: Examples
    """The validation examples, in the order of their use."""
    where: str
    """The recipe's path in params.yaml."""
    compares_samples: bool = True
    """Whether the loss compares an answer with the others to its prompt: then those must differ in their scores."""


class MicroBatch(NamedTuple):
    """A micro-batch that is collated when it is called."""

    rows: Rows
    """Numbers of its examples."""
    make: Callable[[], Batch]

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self) -> Batch:
        """The batch on the model's device, with `rows` and the loss's columns."""
        return self.make()


class HeldOut(NamedTuple):
    """Held-out batches, and the figures that the experience itself measured while it made them."""

    batches: Iterator[Batch]
    figures: dict[str, float]
    """Such as reward and kl_nats of rollouts; empty for records."""


class Experience(ABC):
    """The micro-batches of every update."""

    examples: Examples
    """The training examples; of rollouts the prompts."""

    def begin(self, model: GPT, number: int) -> None:  # noqa: B027 - a default: nothing to make
        """Makes the examples of update `number` (from 0) where they are not there yet: with rollouts at the first
        update of a block.
        """

    @property
    def sized(self) -> Examples:
        """Examples of the sizes that updates have, for the forecast of memory: with rollouts of the longest ones."""
        return self.examples

    @abstractmethod
    def batches(self, number: int, rank: int = 0, world: int = 1) -> list[MicroBatch]:
        """The micro-batches of update `number` (from 0) without empty ones.

        Args:
            number: of the update, which `begin` has prepared.
            rank: number of this process, of `world` that share the update.
            world: their number. The rows of all ranks one after another are those of one process.
        """

    @abstractmethod
    def seen(self, updates: int) -> int:
        """How many training examples (of rollouts: prompts) the first updates read, repeats counted."""

    @abstractmethod
    def held_out(self, model: GPT, examples: Examples, batches: int) -> HeldOut:
        """The first `batches` validation batches, the same ones at every call for the same weights.

        Args:
            model: in evaluation mode.
            examples: the validation examples, or the first of them.
            batches: most of them.
        """

    @property
    def memory(self) -> dict[str, Tensor]:
        """The buffer by name, for the saved training state; empty where the examples follow from the number."""
        return {}

    def problem(self, memory: Mapping[str, Tensor]) -> str | None:
        """The reason why `restore` would refuse a saved memory, or None."""
        return f"it has {min(memory)}, which is not part of this run" if memory else None

    def restore(self, memory: Mapping[str, Tensor]) -> None:  # noqa: B027 - a default: nothing to restore
        """Continues with the memory of a saved state, for which `problem` gives None."""

    @property
    def figures(self) -> dict[str, float]:
        """Figures of the newest block, for the log and the progress bar; empty for records."""
        return {}


def ranks_share(rows: Rows, rank: int, world: int) -> Rows:
    """The part of a micro-batch that one of `world` processes takes: consecutive rows, in as even parts as possible."""
    share: Rows = np.array_split(rows, world)[rank]
    return share


def micro_rows(ordering: Ordering, numbers: range, n_examples: int, seed: int) -> list[Rows]:
    """The rows of some micro-batches; those without any (Poisson sampling) are left out."""
    drawn = [ordering.rows(n_examples, micro, seed) for micro in numbers]
    return [rows for rows in drawn if len(rows)]


def batch_of(
    model: GPT, task: TaskProtocol, examples: Examples | Sequence[Any], rows: Rows, columns: Mapping[str, Tensor]
) -> Batch:
    """The examples of these rows as tensors on the model's device, with `rows` and their part of the columns.

    A second dimension of a column is cut to the width of the batch, or filled with 0.

    Raises:
        ValueError: a column has the name of one of the task's tensors.
    """
    collated = task.collate([examples[int(i)] for i in rows])
    if taken := collated.keys() & (columns.keys() | {"rows"}):
        raise ValueError(f"column {min(taken)!r} of the loss has the name of a tensor of the task; rename it")
    wanted = torch.from_numpy(rows)
    targets = collated.get("targets")  # a reward model has none
    width = targets.shape[1] if targets is not None and targets.shape == collated["inputs"].shape else None
    for name, column in columns.items():
        part = column[wanted.to(column.device)]
        if width is not None and part.dim() > 1:
            part = part[:, :width]
            part = F.pad(part, (0,) * (2 * (part.dim() - 2)) + (0, width - part.shape[1]))
        collated[name] = part
    batch = on_device(collated, model)
    batch["rows"] = wanted
    return batch
