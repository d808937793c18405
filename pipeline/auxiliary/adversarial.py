"""Adversarial smoothing: what the model says must not change when its input is moved where that hurts most.

ALUM, Liu et al. 2020 ("Adversarial training for large neural language models"), equation 5 and algorithm 1: a random
change of the embeddings takes one step uphill on the divergence from what the model says without it; that divergence,
in both directions, is added to the loss. It needs no labels of its own and serves every objective.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.auxiliary import Losses
from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner, Predictions, per_example
from pipeline.model.gpt import GPT, Shown


class Settings(Section):
    weight: Annotated[float, Field(gt=0)]
    """Of the divergence beside the objective's loss; 1 in fine-tuning, 10 in pretraining in the paper."""
    radius: Annotated[float, Field(gt=0)]
    """Largest change of any coordinate, relative to the root mean square of the embeddings: it fits any model."""


def build(settings: Settings, learner: Learner) -> Losses:
    """The objective's losses with the divergence added."""
    return Smoothed(settings, learner).losses


class Smoothed:
    def __init__(self, settings: Settings, learner: Learner) -> None:
        self.settings, self.objective = settings, learner.objective

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: the objective's plus weight times the divergence under the worst change, nats."""
        clean = self.objective.predictions(model, batch)
        losses_N = F.cross_entropy(clean.scores_NC.float(), clean.targets_N, reduction="none")
        change_BTD = self._worst(model, batch, clean.scores_NC.detach())
        with moved(model, change_BTD):
            other = self.objective.predictions(model, batch)
        apart_N = divergence(clean.scores_NC, other.scores_NC)
        return per_example(losses_N + self.settings.weight * apart_N, clean)

    def _worst(self, model: GPT, batch: Batch, clean_NC: Tensor) -> Tensor:
        """change_BTD: a thousandth of the radius at random, then one step along the sign of the divergence's slope."""
        weight = model.embed.weight.detach()
        radius = self.settings.radius * weight.square().mean().sqrt()
        shape = (*batch["inputs"].shape, weight.shape[1])
        # The slope at no change at all is zero, hence the random start. The loop seeds torch's generator every update.
        change_BTD = (torch.randn(shape, device=weight.device) * radius * 1e-3).requires_grad_(True)
        with moved(model, change_BTD):
            found: Predictions = self.objective.predictions(model, batch)
        (slope_BTD,) = torch.autograd.grad(divergence(clean_NC, found.scores_NC).sum(), change_BTD)
        return (change_BTD.detach() + radius * slope_BTD.sign()).clamp(-radius, radius)


def divergence(a_NC: Tensor, b_NC: Tensor) -> Tensor:
    """KL(a || b) + KL(b || a) at every place, nats: [N]."""
    a, b = a_NC.float().log_softmax(-1), b_NC.float().log_softmax(-1)
    return ((a.exp() - b.exp()) * (a - b)).sum(-1)


@contextmanager
def moved(model: GPT, change_BTD: Tensor) -> Iterator[None]:
    """Inside, embeddings come out changed; where an objective lengthened a text, in its front part."""

    def hook(module: Any, arguments: Any, embedded_BTD: Tensor) -> Tensor:
        return embedded_BTD + F.pad(change_BTD, (0, 0, 0, embedded_BTD.shape[1] - change_BTD.shape[1]))

    handle = model.embed.register_forward_hook(hook)
    try:
        # every place of the batch is computed, padding too, so that changes meet their place
        with model.shown(Shown()):
            yield
    finally:
        handle.remove()
