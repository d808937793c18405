"""Learning to reweight examples: weights by the gradient's agreement with that of clean examples (Ren et al. 2018).

Algorithm 1 with equation 12: the weight of an example is the rate at which a step along the example's own gradient
lowers the loss of clean examples, clipped at zero and normalised within the update. That slope is the product of two
gradients, so it is also the rate at which the example's loss changes along the clean gradient: two forward passes
(central difference) measure it for the whole batch, where per-example gradients or second derivatives would cost
several times as much.

One difference from the paper: where examples have labels, each slope is relative to the mean slope of its label in the
update. While the model favours one label, every example of the others has a positive slope and none of that label,
whether correct or not. With the plain slope a small batch then consists of one label, the model swings between labels
and does not learn (tests/weighting/test_weighting.py shows it).

`memory` keeps every example's weight, 1 for an average example: the mean of the previous value and the new weight, so
that late weights outweigh the early, unreliable ones.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config.section import Positive, Section
from pipeline.contracts import Batch, Learner
from pipeline.weighting import Weighting

# The central difference moves the weights by this share of their norm: far enough for float32 to resolve, near enough
# for the loss to be linear (tests/weighting/test_weighting.py compares with per-example gradients).
_STEP = 1e-3


class Settings(Section):
    """The clean records, assumed to be correctly labelled."""

    records_only: ClassVar[bool] = True
    by_task_loss: ClassVar[bool] = True
    column: str = Field(examples=["source"])
    """Column of the records that marks clean ones: source, language, label..."""
    clean: str = Field(examples=["trusted"])
    """Value of that column in clean records; they are trained on as well."""
    clean_batch: Positive = Field(examples=[8])
    """Clean examples drawn per update; at least as many as a micro-batch has."""


def build(settings: Settings, learner: Learner) -> "Reweight":
    """The weighting of these settings. Raises UserError if no record is marked as clean."""
    return Reweight(settings, learner)


class Reweight(Weighting):
    """Weights by the clean examples' gradient, and the memory of them."""

    def __init__(self, settings: Settings, learner: Learner) -> None:
        super().__init__()
        self.settings, self.learner = settings, learner
        self._clean = torch.from_numpy(
            learner.groups(settings.column, [settings.clean], "weighting.clean")[settings.clean]
        )
        count = len(learner.examples)
        self.memory = {"weight": torch.zeros(count), "seen": torch.zeros(count)}

    by_update = True

    def begin(self, update: list[Batch]) -> list[Batch]:
        """Weighs all examples of an update together: their slopes are compared with each other."""
        gradients = self._clean_gradients(self.learner.trainable_parameters())
        slopes_U = torch.cat([self._slopes(batch, gradients) for batch in update])
        targets = [batch["targets"] for batch in update] if self.learner.labels else []
        weights_U = self._normalised(slopes_U, torch.cat(targets) if targets else None)
        sizes = [len(batch["rows"]) for batch in update]
        for batch, weights_B in zip(update, torch.split(weights_U, sizes), strict=True):
            batch["weights"] = weights_B
        return update

    def weights(self, losses_B: Tensor, batch: Batch) -> Tensor:
        """weights_B: max(0, slope), of mean 1 over the update; all zero if no slope is positive."""
        if "weights" not in batch:
            self.begin([batch])
        weights_B = batch["weights"].to(losses_B)
        self._remember(batch["rows"].cpu(), weights_B.cpu().float())
        return weights_B

    def _normalised(self, slopes_B: Tensor, targets_B: Tensor | None) -> Tensor:
        slopes_B = self._relative(slopes_B, targets_B).clamp(min=0)
        return slopes_B / slopes_B.mean().clamp(min=1e-12)

    def _remember(self, rows_B: Tensor, weights_B: Tensor) -> None:
        weight, seen = self.memory["weight"], self.memory["seen"]
        weight[rows_B] = torch.where(seen[rows_B] > 0, (weight[rows_B] + weights_B) / 2, weights_B)
        seen.index_add_(0, rows_B, torch.ones(len(rows_B)))

    def _relative(self, slopes_B: Tensor, targets_B: Tensor | None) -> Tensor:
        """The slopes minus the mean slope of their label; unchanged without labels."""
        if targets_B is None:
            return slopes_B
        ones_B = torch.ones_like(slopes_B)
        zeros_C = slopes_B.new_zeros(len(self.learner.labels))
        counts_C = zeros_C.index_add(0, targets_B, ones_B).clamp(min=1)
        return slopes_B - (zeros_C.index_add(0, targets_B, slopes_B) / counts_C)[targets_B]

    def _slopes(self, batch: Batch, gradients: list[Tensor]) -> Tensor:
        """slopes_B: the derivative of each example's loss along the gradient of the clean loss; without dropout."""
        learner, training = self.learner, self.learner.model.training
        learner.model.eval()
        weights = learner.trainable_parameters()
        gradient_norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        weight_norm = torch.stack([w.detach().square().sum() for w in weights]).sum().sqrt()
        step = float(_STEP * weight_norm / gradient_norm.clamp(min=1e-12))
        kept = [w.data for w in weights]
        after, before = (self._losses_at(weights, kept, gradients, sign * step, batch) for sign in (1, -1))
        learner.model.train(training)
        return (after - before) / (2 * step)

    def _clean_gradients(self, weights: list[nn.Parameter]) -> list[Tensor]:
        """Gradients of the mean loss of random clean examples without dropout; the training loop seeds torch's
        generator.
        """
        training = self.learner.model.training
        self.learner.model.eval()
        drawn = self._clean[torch.randint(len(self._clean), (self.settings.clean_batch,))]
        clean = self.learner.losses(self.learner.batch(drawn.tolist())).mean()
        gradients = torch.autograd.grad(clean, weights, allow_unused=True)
        self.learner.model.train(training)
        return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradients, strict=True)]

    @torch.no_grad()
    def _losses_at(
        self, weights: list[nn.Parameter], kept: list[Tensor], along: list[Tensor], step: float, batch: Batch
    ) -> Tensor:
        """losses_B with the weights moved by `step` in the direction `along`; the weights are restored afterwards."""
        try:
            for w, old, direction in zip(weights, kept, along, strict=True):
                w.data = old + step * direction
            return self.learner.losses(batch)
        finally:
            for w, old in zip(weights, kept, strict=True):
                w.data = old
