"""Differentially private training: DP-SGD (Abadi et al. 2016, algorithm 1).

The gradient of every example is computed separately and clipped to norm C = privacy.clip_norm; Gaussian noise of
standard deviation sigma C is added to their sum, and the result is divided by the expected batch size. opacus clips,
adds noise and keeps the privacy account (Renyi DP of the Poisson-sampled Gaussian mechanism: Mironov et al. 2019);
sigma is the smallest, to 0.01 of epsilon, that keeps the whole schedule within (epsilon, delta). Any task, loss, tuner
and optimizer can be used: everything after the noise is post-processing, and examples never share a forward pass, so
none can change another's gradient. An example's weight multiplies its loss before clipping and is not normalised by the
weights of the batch, whose sum would depend on other examples.

Scope of the budget. Neighbouring data sets differ in one example of the training split: a record, or for documents a
window of tokens. A document in two windows counts twice, and k records with one secret have k times the epsilon. The
trained model is covered. Not covered are the training losses in curve and summary (exact, not for publishing), the
number of examples, the labels, and everything before this recipe: vocabulary, deduplication, gates, the start model.
With validation.patience the epsilon of the updates done is reported; the guarantee stated beforehand is
privacy.epsilon.

Limits of the guarantee. Noise and sampling are drawn from recipe.seed, so that a run can be repeated and resumed to the
same bits. An attacker with the seed can subtract the noise, and one with the code and all data but one record can try
all seeds of torch's CPU generator (it uses 32 bits and is not cryptographic). Figures and memorisation of a run are
therefore as epsilon implies, but a guarantee against such an attacker needs fresh noise from a cryptographic generator,
and such a run cannot be repeated. opacus's secure mode is on: it prevents the attack through floating-point rounding
(Holohan & Braghin 2021), not this one.
"""

import warnings
from typing import Any

import torch
from opacus.accountants import RDPAccountant
from opacus.accountants.utils import get_noise_multiplier
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from pipeline.config.recipe import Privacy, Recipe
from pipeline.contracts import Examples, on_device
from pipeline.errors import UserError
from pipeline.experience import Experience
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.seeds import seed_for
from pipeline.training.loop import Parts


def build(  # noqa: PLR0913 - a recipe with its built parts and two splits
    recipe: Recipe, where: str, model: GPT, parts: Parts, examples: Examples, probe: Examples
) -> "Private":
    """The private gradients of a recipe with `privacy`, for training on `examples`.

    Args:
        recipe: its privacy is set.
        where: the recipe's path in params.yaml.
        model: the model to train.
        parts: the recipe's built parts.
        examples: the training split.
        probe: examples outside of the training split; the first one determines the weights that the loss reaches.

    Raises:
        UserError: a batch larger than the split, a delta that would allow publishing a record, a budget that no noise
            satisfies, or a weighting that depends on other examples.
    """
    assert recipe.privacy is not None
    n, size = len(examples), parts.ordering.batch_size
    if size > n:
        raise UserError(f"params.yaml: {where}.ordering.batch_size is {size}, the training split has {n}; lower it")
    if recipe.privacy.delta * n >= 1:
        raise UserError(
            f"params.yaml: {where}.privacy.delta is {recipe.privacy.delta:g}; it must be below 1 / {n} examples, or "
            "publishing one of them whole would be within the budget"
        )
    if not parts.weighting.by_example:
        raise UserError(
            f"params.yaml: {where}.weighting.name is {recipe.weighting.name}; with privacy a weight may depend on its "
            "own example alone (by_example), or clipping bounds nothing; use uniform, classes or focal"
        )
    sigma = _noise_multiplier(recipe.privacy, size / n, parts.schedule.updates, where)
    return Private(recipe.privacy, sigma, n, parts, _reached_weights(model, parts, probe))


def _noise_multiplier(privacy: Privacy, sample_rate: float, steps: int, where: str) -> float:
    try:
        with warnings.catch_warnings():  # opacus warns of Renyi orders at the edge of its search
            warnings.simplefilter("ignore")
            sigma: float = get_noise_multiplier(
                target_epsilon=privacy.epsilon, target_delta=privacy.delta, sample_rate=sample_rate, steps=steps
            )
            return sigma
    except ValueError:
        raise UserError(
            f"params.yaml: {where}.privacy.epsilon is {privacy.epsilon:g}: no noise keeps {steps} steps within it; "
            "raise epsilon or delta, or lower schedule.steps or ordering.batch_size"
        ) from None


def _reached_weights(model: GPT, parts: Parts, probe: Examples) -> set[int]:
    """Ids of the weights that the loss depends on; noise on others (a classifier's language head) would damage them."""
    model.train()
    loss, _ = _loss(model, parts, probe[0])
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    reached = {id(p) for group in parts.optimizer.param_groups for p in group["params"] if p.grad is not None}
    parts.optimizer.zero_grad(set_to_none=True)
    return reached


def _loss(model: GPT, parts: Parts, example: Any) -> tuple[Tensor, int]:
    """The weighted loss of a single example, and its number of positions."""
    batch = on_device(parts.task.collate([example]), model)
    with autocast(parts.compute):
        losses_B = parts.loss.losses(model, batch)
    return (parts.weighting.weights(losses_B, batch) * losses_B).sum(), batch["inputs"].numel()


class _Optimizer(DPOptimizer):  # type: ignore[misc]  # opacus has no annotations
    """opacus's wrapper of an optimizer, for weights that the loss reaches and that are trained at this update."""

    def __init__(self, optimizer: torch.optim.Optimizer, reached: set[int], **settings: Any) -> None:
        self.reached = reached
        super().__init__(optimizer, secure_mode=True, **settings)

    @property
    def params(self) -> list[nn.Parameter]:
        """The wrapped weights, in the order of the parameter groups."""
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad and id(p) in self.reached]


class Private:
    """`Parts.gradients` of a private recipe, and its privacy account."""

    def __init__(
        self, privacy: Privacy, noise_multiplier: float, n_examples: int, parts: Parts, reached: set[int]
    ) -> None:
        self.privacy, self.noise_multiplier = privacy, noise_multiplier
        self.sample_rate = parts.ordering.batch_size / n_examples
        self._optimizer = _Optimizer(
            parts.optimizer,
            reached,
            noise_multiplier=noise_multiplier,
            max_grad_norm=privacy.clip_norm,
            expected_batch_size=parts.ordering.batch_size,
        )

    def __call__(
        self, model: GPT, parts: Parts, experience: Experience, number: int, device: torch.device
    ) -> tuple[Tensor, int]:
        """Leaves the noisy mean gradients of update `number` in `grad`; the loss is sum / expected batch size."""
        examples = experience.examples
        wrapped, total, tokens = self._optimizer, torch.zeros((), device=device), 0
        wrapped.zero_grad(set_to_none=True)
        for i in parts.ordering.rows(len(examples), number, parts.seed):
            loss, seen = _loss(model, parts, examples[int(i)])
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            self._set_grad_samples(
                [torch.zeros_like(p)[None] if p.grad is None else p.grad[None] for p in wrapped.params]
            )
            wrapped.signal_skip_step()
            wrapped.pre_step()  # clips the gradient and adds it to the sum
            wrapped.zero_grad(set_to_none=True)
            total, tokens = total + loss.detach(), tokens + seen
        wrapped.generator = torch.Generator(device).manual_seed(seed_for(parts.seed, "noise", number))
        self._set_grad_samples([p.new_zeros((0, *p.shape)) for p in wrapped.params])
        wrapped.pre_step()  # adds noise to the sum (zero for an empty batch) and sets `grad`
        return total / parts.ordering.batch_size, tokens

    def _set_grad_samples(self, gradients: list[Tensor]) -> None:
        """Sets `grad_sample` of each weight, [examples, ...], which opacus reads."""
        for p, gradient in zip(self._optimizer.params, gradients, strict=True):
            vars(p)["grad_sample"] = gradient

    def spent(self, steps: int) -> dict[str, float]:
        """The privacy spent by this many updates: epsilon at the recipe's delta, by opacus's accountant."""
        accountant = RDPAccountant()
        accountant.history = [(self.noise_multiplier, self.sample_rate, steps)]
        return {
            "epsilon": float(accountant.get_epsilon(self.privacy.delta)) if steps else 0.0,
            "delta": self.privacy.delta,
            "noise_multiplier": self.noise_multiplier,
            "sample_rate": self.sample_rate,
        }
