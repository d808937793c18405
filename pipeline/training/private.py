"""Differentially private training, DP-SGD (Abadi et al. 2016, algorithm 1): a second way to an update's gradients.

The gradient of every example is computed alone and cut to length C = privacy.clip_norm; to their sum comes Gaussian
noise of deviation sigma C, and the whole is divided by the expected batch size. opacus clips, adds noise and keeps the
account (Renyi DP of the Poisson-sampled Gaussian mechanism: Mironov et al. 2019); sigma is the smallest, to 0.01 of
epsilon, that keeps the whole schedule within (epsilon, delta). Any objective, tuner and optimizer will do: after the
noise everything is post-processing, and an example that never shares a pass with another cannot touch its gradient.
A weight multiplies its example's loss before the cut and is not set against the weights of the batch, whose sum would
tell of others.

What the budget covers. Neighbours differ in one example of the training split: a record, or for documents a window of
tokens, so a document in two windows counts twice, and k records with one secret have k times the epsilon. The trained
model is covered. Outside are the training losses in curve and summary (exact, not for publishing), the number of
examples, the labels, and what came before this recipe: vocabulary, deduplication, gates, the start model. With
validation.patience the epsilon of the steps taken is reported; what was promised beforehand is privacy.epsilon.

Whom the noise protects from. Noise and sampling are drawn from recipe.seed, so that a run can be repeated and continued
to the same bits; who knows the seed can subtract the noise, and who knows code and data but for one record can try all
seeds of torch's CPU generator (it uses 32 bits, and is not cryptographic). So the figures and the memorisation of a run
are those of epsilon, but a promise towards such an opponent needs fresh noise from a cryptographic generator, which no
run could repeat. opacus's secure mode is on: it closes the attack through the rounding of floats (Holohan & Braghin
2021), not this one.
"""

import warnings
from typing import Any

import torch
from opacus.accountants import RDPAccountant
from opacus.accountants.utils import get_noise_multiplier
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from pipeline.config.recipe import Privacy, Recipe, seed_for
from pipeline.contracts import Examples, on_device
from pipeline.errors import UserError
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.training.loop import Parts


def build(recipe: Recipe, where: str, model: GPT, parts: Parts, examples: Examples, probe: Examples) -> "Private":
    """The gradients of a recipe with `privacy`, for training on `examples`.

    Args:
        where: the recipe's path in params.yaml.
        probe: examples outside of the training split; the first one shows which weights the objective uses.

    Raises:
        UserError: a batch larger than the split, a delta that allows to publish a record, a budget that no noise
            keeps, a weighting that looks at other examples.
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
    sigma = _noise_multiplier(recipe.privacy, size / n, recipe.schedule.steps, where)
    return Private(recipe.privacy, sigma, n, parts, _used(model, parts, probe))


def _noise_multiplier(privacy: Privacy, sample_rate: float, steps: int, where: str) -> float:
    try:
        with warnings.catch_warnings():  # of orders of Renyi divergence that the search passes by
            warnings.simplefilter("ignore")
            return get_noise_multiplier(
                target_epsilon=privacy.epsilon, target_delta=privacy.delta, sample_rate=sample_rate, steps=steps
            )
    except ValueError:
        raise UserError(
            f"params.yaml: {where}.privacy.epsilon is {privacy.epsilon:g}: no noise keeps {steps} steps within it; "
            "raise epsilon or delta, or lower schedule.steps or ordering.batch_size"
        ) from None


def _used(model: GPT, parts: Parts, probe: Examples) -> set[int]:
    """Ids of the weights that an example's loss reaches; noise would only spoil others (a classifier's old head)."""
    model.train()
    loss, _ = _loss(model, parts, probe[0])
    loss.backward()
    found = {id(p) for group in parts.optimizer.param_groups for p in group["params"] if p.grad is not None}
    parts.optimizer.zero_grad(set_to_none=True)
    return found


def _loss(model: GPT, parts: Parts, example: Any) -> tuple[Tensor, int]:
    """The weighted loss of one example alone, and its positions."""
    batch = on_device(parts.objective.collate([example]), model)
    with autocast(parts.compute):
        losses_B = parts.losses(model, batch)
    return (parts.weighting.weights(losses_B, batch) * losses_B).sum(), batch["inputs"].numel()


class _Optimizer(DPOptimizer):
    """opacus's wrapper of our optimizer, over the weights that the objective uses and that move at this step."""

    def __init__(self, optimizer: torch.optim.Optimizer, used: set[int], **settings: Any) -> None:
        self.used = used
        super().__init__(optimizer, secure_mode=True, **settings)

    @property
    def params(self) -> list[nn.Parameter]:
        """Those weights, in the order of the groups."""
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad and id(p) in self.used]


class Private:
    """`Parts.gradients` of a private recipe, and its account."""

    def __init__(
        self, privacy: Privacy, noise_multiplier: float, n_examples: int, parts: Parts, used: set[int]
    ) -> None:
        self.privacy, self.noise_multiplier = privacy, noise_multiplier
        self.sample_rate = parts.ordering.batch_size / n_examples
        self._optimizer = _Optimizer(
            parts.optimizer,
            used,
            noise_multiplier=noise_multiplier,
            max_grad_norm=privacy.clip_norm,
            expected_batch_size=parts.ordering.batch_size,
        )

    def __call__(
        self, model: GPT, parts: Parts, examples: Examples, number: int, device: torch.device
    ) -> tuple[Tensor, int]:
        """Noisy mean gradients of update `number`; the loss is the batch's sum over the expected size, as they are."""
        wrapped, total, tokens = self._optimizer, torch.zeros((), device=device), 0
        wrapped.zero_grad(set_to_none=True)
        for i in parts.ordering.rows(len(examples), number, parts.seed):
            loss, seen = _loss(model, parts, examples[int(i)])
            loss.backward()
            self._hand_over([torch.zeros_like(p)[None] if p.grad is None else p.grad[None] for p in wrapped.params])
            wrapped.signal_skip_step()
            wrapped.pre_step()  # clips, adds to the sum
            wrapped.zero_grad(set_to_none=True)
            total, tokens = total + loss.detach(), tokens + seen
        wrapped.generator = torch.Generator(device).manual_seed(seed_for(parts.seed, "noise", number))
        self._hand_over([p.new_zeros((0, *p.shape)) for p in wrapped.params])
        wrapped.pre_step()  # the sum (nothing, if nobody was drawn) gets its noise and becomes `grad`
        return total / parts.ordering.batch_size, tokens

    def _hand_over(self, gradients: list[Tensor]) -> None:
        """Per-example gradients, [examples, ...] for each weight, where opacus looks for them."""
        for p, gradient in zip(self._optimizer.params, gradients, strict=True):
            vars(p)["grad_sample"] = gradient

    def spent(self, steps: int) -> dict[str, float]:
        """What so many updates cost: epsilon at the recipe's delta, by the accountant."""
        accountant = RDPAccountant()
        accountant.history = [(self.noise_multiplier, self.sample_rate, steps)]
        return {
            "epsilon": float(accountant.get_epsilon(self.privacy.delta)) if steps else 0.0,
            "delta": self.privacy.delta,
            "noise_multiplier": self.noise_multiplier,
            "sample_rate": self.sample_rate,
        }
