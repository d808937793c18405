"""Examples count by how much they help on a few that are known to be right (Ren et al. 2018).

Algorithm 1 with equation 12: the weight of an example is how fast the clean examples' loss falls when the example's own
gradient is followed, no less than zero, relative to the batch. That slope is the product of two gradients, so it is
also how fast the example's loss moves along the clean gradient: two more passes without gradients measure it for the
whole batch (central difference), where a gradient per example or a second derivative would cost several times as much.

One thing is not the paper's: where examples have labels, a slope is relative to the mean slope of its label in the
batch. A model that leans to one label for a moment gains from every example of the others and from none of that one,
right or wrong; by the slope alone a small batch is then all of one label, and the model swings from side to side and
learns nothing (tests/weighting/test_weighting.py shows it).

Which records counted little is kept: `memory` holds every example's weight, 1 for one that counts as all others. Each
time an example is seen counts as much as all times before, because a model that knows little yet judges badly.
"""

import torch
from torch import Tensor, nn

from pipeline.config.section import Positive, Section
from pipeline.contracts import Batch, Learner
from pipeline.weighting import Weighting

# The weights move by this share of their own length: enough for float32 to see a difference, little enough for the
# slope to be straight (tests/weighting/test_weighting.py compares with gradients taken one by one).
_STEP = 1e-3


class Settings(Section):
    column: str
    """Of the records: source, language, label..."""
    clean: str
    """The value of that column in records that are known to be right; they are trained on as well."""
    clean_batch: Positive
    """Clean examples that judge a micro-batch; as many as the micro-batch has, or more."""


def build(settings: Settings, learner: Learner) -> "Reweight":
    """The rule. Raises UserError when no record is marked as clean."""
    return Reweight(settings, learner)


class Reweight(Weighting):
    def __init__(self, settings: Settings, learner: Learner) -> None:
        super().__init__()
        self.settings, self.learner = settings, learner
        self._clean = torch.from_numpy(
            learner.groups(settings.column, [settings.clean], "weighting.clean")[settings.clean]
        )
        count = len(learner.examples)
        self.memory = {"weight": torch.zeros(count), "seen": torch.zeros(count)}

    def weights(self, losses_B: Tensor, batch: Batch) -> Tensor:
        """weights_B: max(0, slope), mean 1 where any is above zero; all zero where no example of the batch helps."""
        helps_B = self._relative(self._slopes(batch), batch).clamp(min=0).to(losses_B)
        weights_B = helps_B / helps_B.mean().clamp(min=1e-12)
        self._remember(batch["rows"].cpu(), weights_B.cpu().float())
        return weights_B

    def _remember(self, rows_B: Tensor, weights_B: Tensor) -> None:
        weight, seen = self.memory["weight"], self.memory["seen"]
        weight[rows_B] = torch.where(seen[rows_B] > 0, (weight[rows_B] + weights_B) / 2, weights_B)
        seen.index_add_(0, rows_B, torch.ones(len(rows_B)))

    def _relative(self, slopes_B: Tensor, batch: Batch) -> Tensor:
        """The slopes less the mean slope of their label; as they are where there are no labels."""
        if not self.learner.labels:
            return slopes_B
        ones_B, targets_B = torch.ones_like(slopes_B), batch["targets"]
        zeros_C = slopes_B.new_zeros(len(self.learner.labels))
        counts_C = zeros_C.index_add(0, targets_B, ones_B).clamp(min=1)
        return slopes_B - (zeros_C.index_add(0, targets_B, slopes_B) / counts_C)[targets_B]

    def _slopes(self, batch: Batch) -> Tensor:
        """slopes_B: how fast each example's loss moves along the gradient of the clean loss; dropout is off."""
        learner, training = self.learner, self.learner.model.training
        learner.model.eval()
        weights = learner.moving()
        gradients = self._clean_gradients(weights)
        length = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        size = torch.stack([w.detach().square().sum() for w in weights]).sum().sqrt()
        step = float(_STEP * size / length.clamp(min=1e-12))
        kept = [w.data for w in weights]
        after, before = (self._moved(weights, kept, gradients, sign * step, batch) for sign in (1, -1))
        learner.model.train(training)
        return (after - before) / (2 * step)

    def _clean_gradients(self, weights: list[nn.Parameter]) -> list[Tensor]:
        """The gradient of the mean loss of clean examples, drawn from torch's generator, which the loop seeds."""
        drawn = self._clean[torch.randint(len(self._clean), (self.settings.clean_batch,))]
        clean = self.learner.losses(self.learner.batch(drawn.tolist())).mean()
        found = torch.autograd.grad(clean, weights, allow_unused=True)
        return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]

    @torch.no_grad()
    def _moved(
        self, weights: list[nn.Parameter], kept: list[Tensor], along: list[Tensor], step: float, batch: Batch
    ) -> Tensor:
        """losses_B with the weights `step` further along; the weights themselves are back in place afterwards."""
        try:
            for w, old, direction in zip(weights, kept, along, strict=True):
                w.data = old + step * direction
            return self.learner.losses(batch)
        finally:
            for w, old in zip(weights, kept, strict=True):
                w.data = old
