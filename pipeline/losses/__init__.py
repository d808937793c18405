"""Losses: what an update minimises. Each file is one loss: `build(settings, learner) -> Loss`.

`Loss.losses(model, batch) -> losses_B` is minimised in training. Validation computes the task's own cross-entropy, so
runs with different losses can be compared, unless a loss has a validation of its own.

A loss declares in its Settings `takes` (what a task may emit), `roles` (reference, judge) and `source`: the experience
that it learns from (`records`, which is the default, or `rollouts`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property

from torch import Tensor, nn

from pipeline.contracts import Batch, Examples
from pipeline.model.gpt import GPT


class Loss(ABC):
    """A loss over the examples of a task; it may hold a reference model, a judge and modules that are trained."""

    @cached_property
    def modules(self) -> nn.ModuleDict:
        """Modules of the loss's own, such as a value model; none by default, and a loss that has some sets them when it
        is made. They are trained with the model and kept in the training state, never in the model folder.
        """
        return nn.ModuleDict()

    @abstractmethod
    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B in nats, with gradients."""

    def columns(self, model: GPT, examples: Examples) -> dict[str, Tensor]:  # noqa: ARG002 - for those that have some
        """Further tensors of every example, computed once and given to `losses` in `batch` under their names.

        They are computed before the first update, for the training and for the validation records; with rollouts
        whenever the buffer is filled.

        Args:
            model: the model before the updates that use the columns.
            examples: E examples; with rollouts a RolloutExamples.

        Returns:
            Tensors with first dimension E. A second one is aligned with the targets of `collate` (position t predicts
            token t + 1), padded on the right with 0, and cut to the width of each batch.
        """
        return {}

    def validate(self, model: GPT, batches: Iterable[Batch]) -> dict[str, float] | None:  # noqa: ARG002 - as above
        """The figures of a validation, without gradients; None: the mean of the task's own loss.

        Args:
            model: in evaluation mode.
            batches: of held-out examples, with their columns; to be read once.

        Returns:
            `loss`, which `keep: best` minimises, and any further measures (margin, reward, kl_nats): they go into the
            curve and to the tracker as validation_<name>.
        """
        return None
