"""What an order, a weighting or an auxiliary loss may ask: examples, their columns, the losses of the model as it is.

Built once per run, before training; no part needs to know more of the others. Shapes: B examples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.tokenizer import Tokenizer

Batch = dict[str, Tensor]
_MEASURED_AT_ONCE = 32  # examples; only how many losses are computed together


class Examples(Protocol):
    """What training draws from: examples by number, ready to collate."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Any: ...


class Described(Examples, Protocol):
    """Examples that know what the records they came from say."""

    def column(self, name: str) -> list[str]:
        """One value per example. Raises UserError where records have no such column."""


class Predictions(NamedTuple):
    """What is predicted and what is true, at every place of a batch that counts."""

    scores_NC: Tensor  # noqa: N815
    """Scores of the choices (classes, words, the vocabulary) before softmax."""
    targets_N: Tensor  # noqa: N815
    """The true choice."""
    rows_N: Tensor  # noqa: N815
    """Which example of the batch each place belongs to."""
    examples: int
    """B, examples without any place included."""


def per_example(values_N: Tensor, found: Predictions) -> Tensor:
    """values_B: the mean of the values at each example's places; 0 for one without any."""
    zeros_B = values_N.new_zeros(found.examples)
    sums_B = zeros_B.index_add(0, found.rows_N, values_N)
    return sums_B / zeros_B.index_add(0, found.rows_N, torch.ones_like(values_N)).clamp(min=1)


class Learned(Protocol):
    """The part of an objective that others use."""

    task: dict[str, Any]

    def collate(self, examples: Sequence[Any]) -> Batch: ...

    def losses(self, model: GPT, batch: Batch) -> Tensor: ...

    def predictions(self, model: GPT, batch: Batch) -> Predictions: ...


@dataclass(frozen=True)
class Learner:
    """A model, what it learns and what it learns from."""

    model: GPT
    objective: Learned
    examples: Described
    compute: Compute
    tokenizer: Tokenizer
    reference: Callable[[], GPT] | None = None
    """Reads the frozen model that an auxiliary loss compares with; none in pretraining."""

    @property
    def labels(self) -> list[str]:
        """The labels that are learned; empty where there are none."""
        return list(self.objective.task.get("labels", []))

    def moving(self) -> list[nn.Parameter]:
        """The weights that training moves."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def batch(self, rows: Sequence[int]) -> Batch:
        """These examples as tensors on the model's device."""
        return on_device(self.objective.collate([self.examples[i] for i in rows]), self.model)

    def losses(self, batch: Batch) -> Tensor:
        """losses_B of the model as it is, float32, with gradients unless switched off around the call."""
        with autocast(self.compute):
            return self.objective.losses(self.model, batch).float()

    def real(self, inputs_BT: Tensor) -> Tensor:
        """real_BT: true where a token of text stands, false on padding."""
        return inputs_BT != self.tokenizer.pad

    def lengths(self) -> np.ndarray:
        """Tokens of every example."""
        return np.array(
            [self.objective.collate([self.examples[i]])["inputs"].shape[1] for i in range(len(self.examples))]
        )

    @torch.no_grad()
    def all_losses(self) -> np.ndarray:
        """The loss of every example under the model as it is, float64."""
        self.model.eval()
        found = [
            self.losses(self.batch(range(first, min(first + _MEASURED_AT_ONCE, len(self.examples)))))
            for first in range(0, len(self.examples), _MEASURED_AT_ONCE)
        ]
        return torch.cat([torch.zeros(0), *(losses_B.cpu() for losses_B in found)]).double().numpy()

    def groups(self, column: str, values: Sequence[str], where: str) -> dict[str, np.ndarray]:
        """value -> numbers of the examples whose record has it in `column`.

        Raises:
            UserError: no such column, or a value that no record has; names `where` in params.yaml.
        """
        return groups(self.examples, column, values, where)


def groups(examples: Described, column: str, values: Sequence[str], where: str) -> dict[str, np.ndarray]:
    """As `Learner.groups`, for any examples."""
    found = np.array(examples.column(column), dtype=object)
    there = sorted(set(found.tolist()))
    if missing := sorted(set(values) - set(there)):
        raise UserError(
            f"params.yaml: {where} names {', '.join(missing)}; column {column!r} holds {', '.join(there) or 'nothing'}"
        )
    return {value: np.flatnonzero(found == value) for value in values}


def on_device(batch: Batch, model: GPT) -> Batch:
    """The batch where the model is; copies nothing that is there already."""
    device = model.embed.weight.device
    if device.type == "cuda":
        # from pinned memory in one piece the copy runs beside what the device still computes
        return {
            name: tensor if tensor.is_cuda else tensor.contiguous().pin_memory().to(device, non_blocking=True)
            for name, tensor in batch.items()
        }
    return {name: tensor.to(device) for name, tensor in batch.items()}
