"""The interfaces between the parts of a recipe: Batch, Examples, Rollout, Predictions, Learner.

An ordering, a weighting and a loss get a `Learner`, built once per run before training: model, task and training
examples. The parts do not depend on each other otherwise.

Shapes: B examples, T positions, N predicted positions of a batch, C choices (classes, words or the vocabulary).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.prompts.spec import TaskSpec
from pipeline.tokenizer import Tokenizer

Batch = dict[str, Tensor]
"""Named tensors of B examples: `inputs` [B, T] and the further tensors that the task's losses need."""
IGNORED = -100
"""Target of a position without loss (`ignore_index` of torch's cross_entropy)."""
_BATCH_SIZE = 32  # of `all_losses`: only the number of losses that are computed together


class Examples(Protocol):
    """The training or validation examples by index, ready to collate."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Any: ...


class RecordExamples(Examples, Protocol):
    """Examples that keep the columns of the records they were made from."""

    def column(self, name: str) -> list[str]:
        """One value per example. Raises UserError if the records have no such column."""


class Rollout(NamedTuple):
    """An answer that the model in training drew to the prompt of a record."""

    record: Mapping[str, Any]
    """The record whose prompt was asked."""
    prompt: tuple[int, ...]
    """Ids of the prompt."""
    answer: tuple[int, ...]
    """Ids as drawn, the stop id included where the answer ended by it; never tokenised again from text."""
    logprobs: tuple[float, ...]
    """ln p of each id of the answer under the distribution that it was drawn from, the temperature included."""
    text: str
    """The answer in text, without the stop id."""
    ended: bool
    """Whether it ended by the stop id, not by its length."""
    group: int
    """Number of its prompt in the block; the answers to one prompt are consecutive."""


class RolloutExamples(Examples, Protocol):
    """A block of rollouts: `[i]` is (ids, targets) as of the task's examples, targets IGNORED on the prompt."""

    rollouts: Sequence[Rollout]
    scores_E: Tensor
    """The judge's score of each rollout, float32."""
    temperature: float
    """At which the answers were drawn."""
    max_tokens: int
    """Most tokens of an answer."""


class Judged(NamedTuple):
    """An answer that a judge scores."""

    record: Mapping[str, Any]
    """The record that was asked."""
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    """Ids, the stop id included where the answer ended by it."""
    text: str
    """The answer in text, without the stop id."""


class JudgeProtocol(Protocol):
    """The part of `pipeline.judges.Judge` that other axes use."""

    def scores(self, judged: Sequence[Judged]) -> Tensor:
        """scores_E, float32; higher is better."""


class Predictions(NamedTuple):
    """Scores and targets at every position of a batch that enters the loss."""

    scores_NC: Tensor
    """Logits (or log-probabilities) of the choices: classes, words or the vocabulary."""
    targets_N: Tensor
    """Index of the true choice."""
    rows_N: Tensor
    """Index in the batch of the example that each position belongs to."""
    n_examples: int
    """B, including examples without a predicted position."""


def per_example(values_N: Tensor, predictions: Predictions) -> Tensor:
    """values_B: the mean of the values over each example's positions; 0 for an example without any."""
    zeros_B = values_N.new_zeros(predictions.n_examples)
    sums_B = zeros_B.index_add(0, predictions.rows_N, values_N)
    return sums_B / zeros_B.index_add(0, predictions.rows_N, torch.ones_like(values_N)).clamp(min=1)


class TaskProtocol(Protocol):
    """The part of `pipeline.tasks.Task` that other axes use."""

    spec: TaskSpec
    """Written into the model folder as tohum.json."""

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Examples as tensors, padded to the longest of the batch."""

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B in nats."""

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """Scores and targets at every position that enters the loss."""


@dataclass(frozen=True)
class Learner:
    """A model, its task and its training examples."""

    model: GPT
    task: TaskProtocol
    examples: RecordExamples
    compute: Compute
    tokenizer: Tokenizer
    reference: Callable[[], GPT] | None = None
    """Loads the frozen reference model of a loss (a teacher); None in pretraining."""
    judge: JudgeProtocol | None = None
    """Scores answers; None in pretraining."""

    @property
    def labels(self) -> list[str]:
        """The classes of the task; empty if it has none."""
        return list(self.task.spec.labels or ())

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that are not frozen."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def batch(self, rows: Sequence[int]) -> Batch:
        """These examples as tensors on the model's device."""
        return on_device(self.task.collate([self.examples[i] for i in rows]), self.model)

    def losses(self, batch: Batch) -> Tensor:
        """losses_B of the current model, float32; with gradients unless called under `torch.no_grad`."""
        with autocast(self.compute):
            return self.task.losses(self.model, batch).float()

    def token_mask(self, inputs_BT: Tensor) -> Tensor:
        """mask_BT: true on tokens, false on padding."""
        return inputs_BT != self.tokenizer.pad

    def lengths(self) -> np.ndarray:
        """Number of tokens of every example, int64."""
        return np.array([self.task.collate([self.examples[i]])["inputs"].shape[1] for i in range(len(self.examples))])

    @torch.no_grad()
    def all_losses(self) -> np.ndarray:
        """The loss of every example under the current model in nats, float64."""
        self.model.eval()
        losses = [
            self.losses(self.batch(range(first, min(first + _BATCH_SIZE, len(self.examples)))))
            for first in range(0, len(self.examples), _BATCH_SIZE)
        ]
        return torch.cat([torch.zeros(0), *(losses_B.cpu() for losses_B in losses)]).double().numpy()

    def groups(self, column: str, values: Sequence[str], where: str) -> dict[str, np.ndarray]:
        """value -> indices of the examples whose record has this value in `column`.

        Raises:
            UserError: no such column, or a value that no record has; names `where` in params.yaml.
        """
        return groups(self.examples, column, values, where)


def groups(examples: RecordExamples, column: str, values: Sequence[str], where: str) -> dict[str, np.ndarray]:
    """As `Learner.groups`, for any examples."""
    cells = np.array(examples.column(column), dtype=object)
    known = sorted(set(cells.tolist()))
    if missing := sorted(set(values) - set(known)):
        raise UserError(
            f"params.yaml: {where} names {', '.join(missing)}; column {column!r} holds {', '.join(known) or 'nothing'}"
        )
    return {value: np.flatnonzero(cells == value) for value in values}


def on_device(batch: Batch, model: GPT) -> Batch:
    """The batch on the model's device; tensors that are there already are not copied."""
    device = model.embed.weight.device
    if device.type == "cuda":
        # from pinned, contiguous memory the copy runs while the device still computes
        return {
            name: tensor if tensor.is_cuda else tensor.contiguous().pin_memory().to(device, non_blocking=True)
            for name, tensor in batch.items()
        }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def token_logprobs(predictions: Predictions) -> Tensor:
    """logprobs_N: ln p of every target under the scores, float32 for scores of any precision."""
    scores_NC = predictions.scores_NC.float()
    return -nn.functional.cross_entropy(scores_NC, predictions.targets_N, reduction="none")


def row_sums(values_N: Tensor, predictions: Predictions, n_rows: int) -> tuple[Tensor, Tensor]:
    """sums_S and counts_S of the values of each row's positions; 0 for a row without any."""
    zeros_S = values_N.new_zeros(n_rows)
    sums_S = zeros_S.index_add(0, predictions.rows_N, values_N)
    return sums_S, zeros_S.index_add(0, predictions.rows_N, torch.ones_like(values_N))
