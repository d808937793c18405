"""Virtual adversarial training (ALUM): predictions stay equal under an adversarial perturbation of the embeddings.

Liu et al. 2020, "Adversarial training for large neural language models", equation 5 and algorithm 1: a random
perturbation of the embeddings takes one gradient step that increases the divergence from the unperturbed predictions;
the divergence, in both directions, is added to the loss. It needs no labels and works with every task.

Shapes: B examples, T positions, D model width, N predicted positions, C choices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner, Predictions, per_example
from pipeline.losses import Loss
from pipeline.model.capture import Capture
from pipeline.model.gpt import GPT


class Settings(Section):
    """Weight of the divergence and size of the perturbation."""

    takes: ClassVar[frozenset[str]] = frozenset({"tokens", "classes"})
    roles: ClassVar[frozenset[str]] = frozenset()
    weight: float = Field(gt=0, examples=[1.0])
    """Factor of the divergence in the loss; in the paper 1 in fine-tuning and 10 in pretraining."""
    radius: float = Field(gt=0, examples=[0.1])
    """Largest change of any coordinate, relative to the root mean square of the embeddings."""


def build(settings: Settings, learner: Learner) -> "Adversarial":
    """The task's losses plus the weighted divergence."""
    return Adversarial(settings, learner)


class Adversarial(Loss):
    """Cross-entropy with the divergence under an adversarial perturbation."""

    def __init__(self, settings: Settings, learner: Learner) -> None:
        self.settings, self.task = settings, learner.task

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: the task's loss plus `weight` times the divergence under the perturbation, nats."""
        clean = self.task.predictions(model, batch)
        losses_N = F.cross_entropy(clean.scores_NC.float(), clean.targets_N, reduction="none")
        change_BTD = self._perturbation(model, batch, clean.scores_NC.detach())
        with perturbed(model, change_BTD):
            other = self.task.predictions(model, batch)
        divergence_N = symmetric_kl(clean.scores_NC, other.scores_NC)
        return per_example(losses_N + self.settings.weight * divergence_N, clean)

    def _perturbation(self, model: GPT, batch: Batch, clean_NC: Tensor) -> Tensor:
        """change_BTD: normal noise of a thousandth of the radius, then one step along the sign of the gradient."""
        weight = model.embed.weight.detach()
        radius = self.settings.radius * weight.square().mean().sqrt()
        shape = (*batch["inputs"].shape, weight.shape[1])
        # At zero the gradient is zero, hence the random start. The training loop seeds torch's generator every update.
        change_BTD = (torch.randn(shape, device=weight.device) * radius * 1e-3).requires_grad_(True)
        with perturbed(model, change_BTD):
            predictions: Predictions = self.task.predictions(model, batch)
        (gradient_BTD,) = torch.autograd.grad(symmetric_kl(clean_NC, predictions.scores_NC).sum(), change_BTD)
        return (change_BTD.detach() + radius * gradient_BTD.sign()).clamp(-radius, radius)


def symmetric_kl(a_NC: Tensor, b_NC: Tensor) -> Tensor:
    """KL(a || b) + KL(b || a) at every position in nats, [N]; a and b are scores before softmax."""
    a, b = a_NC.float().log_softmax(-1), b_NC.float().log_softmax(-1)
    return ((a.exp() - b.exp()) * (a - b)).sum(-1)


@contextmanager
def perturbed(model: GPT, change_BTD: Tensor) -> Iterator[None]:
    """Adds `change_BTD` to the token embeddings inside the context; positions beyond T (added by cloze) get zeros."""

    def hook(_module: Any, _arguments: Any, embedded_BTD: Tensor) -> Tensor:
        return embedded_BTD + F.pad(change_BTD, (0, 0, 0, embedded_BTD.shape[1] - change_BTD.shape[1]))

    handle = model.embed.register_forward_hook(hook)
    try:
        # padded batches: the model computes every position, so the perturbation aligns with the embeddings
        with model.capturing(Capture()):
            yield
    finally:
        handle.remove()
