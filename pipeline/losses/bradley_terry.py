"""Bradley-Terry loss of a reward model: -ln p(chosen is better) = -ln sigmoid(difference of the rewards).

Bradley & Terry 1952; as a loss of language models Stiennon et al. 2020, section 3.4. Values are those of TRL's
RewardTrainer (tests/golden/preference_losses.json).

Shapes: B pairs.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner
from pipeline.losses import Loss, pair_figures
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT


class Settings(Section):
    """Centre of the rewards."""

    takes: ClassVar[frozenset[str]] = frozenset({"pairs"})
    roles: ClassVar[frozenset[str]] = frozenset()
    by_example: ClassVar[bool] = True
    head: ClassVar[str] = "scalar"
    center: float = Field(default=0.0, ge=0, examples=[0.0, 0.01])
    """Factor of (sum of both rewards)^2, which keeps them around 0 (Eisenstein et al. 2023, equation 2; TRL's
    `center_rewards_coefficient`); 0: none. Without it only differences between rewards are learned."""


def build(settings: Settings, learner: Learner) -> "BradleyTerry":
    """The loss of the learner's task."""
    return BradleyTerry(settings, learner)


class BradleyTerry(Loss):
    """Cross-entropy of the judgement under the rewards."""

    def __init__(self, settings: Settings, learner: Learner) -> None:
        self.settings, self.learner = settings, learner

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B, nats."""
        return self._losses(*self._rewards(model, batch))

    @torch.no_grad()
    def validate(self, model: GPT, batches: Iterable[Batch]) -> dict[str, float]:
        """loss, pair_accuracy (share of pairs whose chosen answer has the higher reward, ties half) and margin (mean
        difference of the rewards).
        """
        with autocast(self.learner.compute):
            rewards = [self._rewards(model, batch) for batch in batches]
        chosen_E, rejected_E = torch.cat(rewards, dim=1)
        return pair_figures(self._losses(chosen_E, rejected_E), chosen_E, rejected_E)

    def _rewards(self, model: GPT, batch: Batch) -> Tensor:
        """rewards_2B: of the chosen and of the rejected answers."""
        return self.learner.task.predictions(model, batch).scores_NC.float().reshape(2, -1)

    def _losses(self, chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
        losses_B = -F.logsigmoid(chosen_B - rejected_B)
        if self.settings.center:
            losses_B = losses_B + self.settings.center * (chosen_B + rejected_B).square()
        return losses_B
