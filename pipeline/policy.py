"""Policy gradients: log-probabilities of sampled answers, advantages, divergence from a reference, held-out reward.

`losses/grpo.py` and `losses/ppo.py` share them. A rollout is a prompt with an answer that was drawn from the policy at
a temperature; all log-probabilities here, also those of the reference, are at that temperature.

Shapes: E rollouts of a buffer, B rows of a batch, T positions (position t predicts token t + 1, as in `targets_BT` of
collate), N answer tokens of a batch in the order of its rows, C ids of the vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from pipeline import answer_passes
from pipeline.contracts import (
    Batch,
    Learner,
    Predictions,
    RolloutExamples,
    on_device,
    row_sums,
    token_logprobs,
)
from pipeline.errors import UserError
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT

_SCORES = 2**24  # of a pass over a buffer, 64 MiB in float32: only the number that are computed together
_ROWS = (8, 256)  # fewest and most rows of such a pass
_EPSILON = 1e-4  # added to the standard deviation of a group, as in TRL

Baseline = Literal["group", "leave_one_out"]
Buffer = RolloutExamples
"""The rollouts of a block, or of held-out prompts."""
Batches = Iterable[Batch]
Values = Callable[[Batch], Tensor]
"""batch -> values_N at the answer tokens."""


class Drawn:
    """The answers of a buffer as tensors on the CPU."""

    def __init__(self, buffer: RolloutExamples) -> None:
        rollouts = buffer.rollouts
        self.buffer = buffer
        self.lengths_E = torch.tensor([len(rollout.answer) for rollout in rollouts])
        starts_E = torch.tensor([len(rollout.prompt) - 1 for rollout in rollouts])
        positions_T = torch.arange(int((starts_E + self.lengths_E).max()))
        self.mask_ET = (positions_T >= starts_E[:, None]) & (positions_T < (starts_E + self.lengths_E)[:, None])
        """Positions that predict a token of the answer."""
        self.last_ET = positions_T == (starts_E + self.lengths_E - 1)[:, None]
        """The position that predicts the last token of the answer."""
        drawn = torch.tensor([value for rollout in rollouts for value in rollout.logprobs])
        self.behaviour_ET = torch.zeros(self.mask_ET.shape).masked_scatter(self.mask_ET, drawn)
        """ln p under the policy that drew the answers; 0 elsewhere."""
        self.group_E = torch.tensor([rollout.group for rollout in rollouts])

    def log_ratios(self, reference_ET: Tensor) -> Tensor:
        """ln p - ln q of the answer tokens, [E, T], float64; 0 elsewhere; their sums estimate the KL."""
        return (self.behaviour_ET - reference_ET).double() * self.mask_ET

    def constant(self, value: float) -> Tensor:
        """A column of one number, [E]."""
        return torch.full((len(self.lengths_E),), value)

    @torch.no_grad()
    def computed(self, learner: Learner, values_of: Values) -> Tensor:
        """values_ET: a function batch -> values_N at all answer tokens of the buffer; 0 elsewhere."""
        values_ET = torch.zeros(self.mask_ET.shape)
        places = list(range(len(self.lengths_E)))  # in their own order: answers to a prompt are consecutive
        fitting = _SCORES // (learner.model.config.vocab_size * int(self.lengths_E.max()))
        size = max(_ROWS[0], min(_ROWS[1], fitting))
        for first in range(0, len(places), size):
            rows = places[first : first + size]
            batch = on_device(learner.task.collate([self.buffer[row] for row in rows]), learner.model)
            with autocast(learner.compute):
                values_N = values_of(batch)
            chosen_BT = torch.zeros(len(rows), self.mask_ET.shape[1])
            values_ET[rows] = chosen_BT.masked_scatter(self.mask_ET[rows], values_N.float().cpu())
        return values_ET


def rows_of(batch: Batch, rows: Tensor) -> Batch:
    """Some rows of a batch."""
    return {name: value[rows.to(value.device)] for name, value in batch.items()}


def at_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """The predictions whose softmax is the distribution that answers are drawn from; float32."""
    scores_NC = predictions.scores_NC.float()
    return predictions if temperature == 1 else predictions._replace(scores_NC=scores_NC / temperature)


def logprobs_of(predictions: Predictions, temperature: float = 1.0) -> Tensor:
    """logprobs_N: ln p of the target at every position, at a temperature."""
    return token_logprobs(at_temperature(predictions, temperature))


def sum_by_row(values_N: Tensor, predictions: Predictions) -> Tensor:
    """sums_B: the sum of the values over each row's answer tokens; 0 for a row without any."""
    return row_sums(values_N, predictions, predictions.n_examples)[0]


def zero_losses(model: GPT, batch: Batch) -> Tensor:
    """losses_B of rows that are not computed: 0, with gradients that are 0, so that the optimizer takes its step."""
    zero = torch.stack([p.sum() * 0.0 for p in model.parameters() if p.requires_grad]).sum()
    return zero.expand(len(batch["inputs"]))


def clipped_surrogate(ratio_N: Tensor, advantages_N: Tensor, low: float, high: float) -> Tensor:
    """losses_N: -min(r A, clip(r, 1 - low, 1 + high) A) (Schulman et al. 2017, equation 7)."""
    return -torch.min(ratio_N * advantages_N, ratio_N.clamp(1 - low, 1 + high) * advantages_N)


def group_advantages(scores_E: Tensor, group_E: Tensor, baseline: Baseline, standardise: bool) -> Tensor:
    """advantages_E: scores minus a baseline of the other answers to the same prompt, float64.

    group: minus the mean of the group (Shao et al. 2024). leave_one_out: minus the mean of the others (Kool et al.
    2019; Ahmadian et al. 2024), which is G / (G - 1) times the former and unbiased. `standardise` divides by the
    group's standard deviation (denominator G - 1) plus 1e-4, as TRL does. Groups without spread have advantage 0.
    """
    scores_E = scores_E.double()
    groups = int(group_E.max()) + 1
    zeros_G = scores_E.new_zeros(groups)
    sizes_E = zeros_G.index_add(0, group_E, torch.ones_like(scores_E))[group_E]
    centred_E = scores_E - zeros_G.index_add(0, group_E, scores_E)[group_E] / sizes_E
    deviations_E = _deviations(centred_E, group_E, sizes_E)
    if baseline == "leave_one_out":
        centred_E = centred_E * sizes_E / (sizes_E - 1).clamp(min=1)
    if standardise:
        centred_E = centred_E / (deviations_E + _EPSILON)
    return centred_E * has_spread(scores_E, group_E)  # the mean of equal numbers may differ in the last bit


def _deviations(centred_E: Tensor, group_E: Tensor, sizes_E: Tensor) -> Tensor:
    """The standard deviation of each row's group, of scores minus their group's mean."""
    squares_G = centred_E.new_zeros(int(group_E.max()) + 1).index_add(0, group_E, centred_E.square())
    return (squares_G[group_E] / (sizes_E - 1).clamp(min=1)).sqrt()


def has_spread(scores_E: Tensor, group_E: Tensor) -> Tensor:
    """Whether the scores of each row's group differ."""
    empty_G = scores_E.new_zeros(int(group_E.max()) + 1)
    highest_G = empty_G.scatter_reduce(0, group_E, scores_E, "amax", include_self=False)
    lowest_G = empty_G.scatter_reduce(0, group_E, scores_E, "amin", include_self=False)
    return (highest_G > lowest_G)[group_E]


def generalised_advantages(rewards_ET: Tensor, values_ET: Tensor, mask_ET: Tensor, gamma: float, lam: float) -> Tensor:
    """advantages_ET of answer tokens: generalised advantage estimation (Schulman et al. 2016, equation 16), float64.

    The answer's positions are consecutive; after the last of them the value is 0. 0 outside of the answer.
    """
    rewards_ET, values_ET = rewards_ET.double(), values_ET.double() * mask_ET
    advantages_ET = torch.zeros_like(rewards_ET)
    next_values_E = next_advantages_E = torch.zeros_like(rewards_ET[:, 0])
    for t in range(rewards_ET.shape[1] - 1, -1, -1):
        mask_E = mask_ET[:, t].double()
        deltas_E = rewards_ET[:, t] + gamma * next_values_E - values_ET[:, t]
        next_advantages_E = (deltas_E + gamma * lam * next_advantages_E) * mask_E
        next_values_E = values_ET[:, t]
        advantages_ET[:, t] = next_advantages_E
    return advantages_ET


def whitened(values_ET: Tensor, mask_ET: Tensor) -> Tensor:
    """The values with mean 0 and variance 1 over the answer tokens; 0 elsewhere."""
    chosen_N = values_ET[mask_ET]
    if len(chosen_N) < 2:  # no variance of one number
        return values_ET
    return ((values_ET - chosen_N.mean()) / (chosen_N.var() + 1e-8).sqrt()) * mask_ET


def require_reference(learner: Learner, loss: str) -> GPT:
    """The frozen reference model, in evaluation mode.

    Raises:
        UserError: none, or one of another vocabulary.
    """
    if learner.reference is None:
        raise UserError(
            f"params.yaml: loss.name is {loss}, which needs a reference model, and pretraining has none; use it in a "
            "recipe of `finetune`"
        )
    reference = learner.reference()
    ours, theirs = learner.model.config.vocab_size, reference.config.vocab_size
    if ours != theirs:
        raise UserError(
            f"params.yaml: reference knows {theirs} tokens, the trained model {ours}; name a model of the same "
            "vocabulary"
        )
    return reference.to(learner.model.embed.weight.device).requires_grad_(False).eval()


def has_dropout(model: GPT) -> bool:
    """Whether a part of the model drops activations in training."""
    return bool(model.dropout) or any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in model.modules())


def model_logprobs(model: GPT, temperature: float) -> Values:
    """The function batch -> logprobs_N of a model: the reference, or the policy that answered."""
    return lambda batch: logprobs_of(answer_passes.predictions(model, batch), temperature)


@contextmanager
def without_dropout(model: GPT, drops: bool) -> Iterator[None]:
    """Passes without dropout, for a model that has some: it would move the ratio to the policy that answered from 1."""
    training = model.training
    if drops:
        model.eval()
    yield
    if drops:
        model.train(training)


@torch.no_grad()
def held_out(model: GPT, reference: GPT, batches: Batches, kl_weight: float) -> dict[str, float]:
    """The policy on held-out prompts: means over their answers.

    Args:
        model: the policy that drew the answers.
        reference: it is compared with.
        batches: of a buffer of answers, with columns score, ended and temperature.
        kl_weight: of the divergence in `loss`.

    Returns:
        loss: -(reward - kl_weight * kl_nats), which `keep: best` minimises; reward: the judge's score; kl_nats:
        divergence of the policy from the reference, summed over the steps of the answer, each computed over the whole
        vocabulary; answer_tokens; ended_share: answers that ended by the stop id.
    """
    training = model.training
    model.eval()
    sums = dict.fromkeys(("reward", "kl_nats", "answer_tokens", "ended_share"), 0.0)
    count = 0
    for batch in batches:
        temperature = float(batch["temperature"][0])
        ours, theirs = (
            at_temperature(answer_passes.predictions(one, batch), temperature) for one in (model, reference)
        )
        ours_NC, theirs_NC = (one.scores_NC.float().log_softmax(-1) for one in (ours, theirs))
        sums["kl_nats"] += float((ours_NC.exp() * (ours_NC - theirs_NC)).sum(-1).double().sum())
        sums["reward"] += float(batch["score"].double().sum())
        sums["answer_tokens"] += len(ours.targets_N)
        sums["ended_share"] += float(batch["ended"].double().sum())
        count += ours.n_examples
    model.train(training)
    means = {name: value / max(count, 1) for name, value in sums.items()}
    return {"loss": kl_weight * means["kl_nats"] - means["reward"], **means}
