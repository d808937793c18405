"""GRPO: policy gradient on judged answers, with the other answers to the same prompt as baseline (Shao et al. 2024).

An answer's advantage is its score minus the mean of its group; the loss is PPO's clipped surrogate at every token of it
(DeepSeekMath, equation 3). With one update a block the ratio to the sampling policy is 1, and the loss is REINFORCE.

    Dr. GRPO (Liu et al. 2025)        standardise: false, divisor: constant    the gradient of the expected score
    RLOO (Ahmadian et al. 2024)       baseline: leave_one_out, standardise: false, divisor: constant
    GRPO of the paper                 standardise: true, divisor: sequence     long answers weigh less a token, and
                                                                               prompts with little spread as much
    DAPO (Yu et al. 2025)             divisor: tokens, clip: {low: 0.2, high: 0.28}

Forms of the divergence from the reference, all on sampled tokens. Tested against exact gradients
(tests/losses/oracle.py):

    k1_in_reward   score - weight * ln(p / q) of the whole answer: the gradient of the KL is unbiased; `standardise`
                   divides it too, so that in a group of equal scores it decides alone, whatever its weight
    k2             half the squared ln(p / q) of the whole answer as a loss: unbiased before the first update of a
                   block, with more variance
    k3             q/p - ln(q/p) - 1 at every token as a loss: the gradient is biased (of the KL with p and q exchanged,
                   at each step), and a token's effect on later ones is left out
    k3_corrected   k3 times the ratio, TRL's default (DeepSeek-V3.2, 2025): the gradient of each step's KL; the effect
                   on later steps is left out as well

Shapes: E rollouts of a buffer, B rows of a batch, T positions, N answer tokens of a batch.
"""

from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from pipeline import answer_passes, policy
from pipeline.config.section import Section
from pipeline.contracts import Batch, Examples, Learner, Predictions
from pipeline.losses import Loss
from pipeline.model.gpt import GPT


class Clip(Section):
    """Range of the ratio to the policy that answered."""

    low: float = Field(ge=0, lt=1)
    """The ratio counts from 1 - low."""
    high: float = Field(ge=0)
    """The ratio counts up to 1 + high."""


class KL(Section):
    """Divergence from the reference."""

    weight: float = Field(ge=0)
    """Score that a nat costs; 0: the reference is compared in validation only."""
    form: Literal["k1_in_reward", "k2", "k3", "k3_corrected"]
    """Estimator: k1_in_reward and k2 are unbiased, k3 and k3_corrected are TRL's."""


class Settings(Section):
    """Baseline, scale and limits of the policy gradient."""

    takes: ClassVar[frozenset[str]] = frozenset({"prompts"})
    roles: ClassVar[frozenset[str]] = frozenset({"reference", "judge"})
    source: ClassVar[str] = "rollouts"
    compares_samples: ClassVar[bool] = True
    baseline: Literal["group", "leave_one_out"] = Field(examples=["group", "leave_one_out"])
    """Subtracted from an answer's score: the mean of its group, or of the other answers of its group."""
    standardise: bool = Field(examples=[False, True])
    """Divide by the standard deviation of the group's scores; true weighs every prompt alike and is biased."""
    divisor: Literal["sequence", "tokens", "constant"] = Field(examples=["constant", "sequence", "tokens"])
    """Of the sum over an answer's tokens: its length, the mean length of the block, or `experience.max_tokens`."""
    clip: Clip = Field(examples=[{"low": 0.2, "high": 0.2}])
    """Limits of the ratio to the policy that answered."""
    kl: KL = Field(examples=[{"weight": 0.05, "form": "k1_in_reward"}, {"weight": 0.0, "form": "k1_in_reward"},
                             {"weight": 0.05, "form": "k2"}, {"weight": 0.05, "form": "k3"},
                             {"weight": 0.05, "form": "k3_corrected"}])  # fmt: skip
    """Weight and estimator of the divergence from the reference."""


def build(settings: Settings, learner: Learner) -> "GRPO":
    """The loss with its frozen reference. Raises UserError for a reference of another vocabulary."""
    return GRPO(settings, learner, policy.require_reference(learner, "grpo"))


class GRPO(Loss):
    """Clipped policy gradient with a group baseline; without dropout, whose ratio would be noise."""

    def __init__(self, settings: Settings, learner: Learner, reference: GPT) -> None:
        super().__init__()
        self.settings, self.learner, self.reference = settings, learner, reference
        self.figures: dict[str, float] = {}
        """Of the newest block, for the tracker."""
        self._drops = policy.has_dropout(learner.model)

    def columns(self, _model: GPT, examples: Examples) -> dict[str, Tensor]:
        """Of a block: advantages, divisor, temperature [E], and reference_logprobs [E, T] for a KL in the loss."""
        buffer = cast(policy.Buffer, examples)
        drawn, kl = policy.Drawn(buffer), self.settings.kl
        scores_E = buffer.scores_E.double()
        columns = {"temperature": drawn.constant(buffer.temperature), "divisor": self._divisor(drawn)}
        self.figures = {}
        if kl.weight:
            of_batch = policy.model_logprobs(self.reference, buffer.temperature)
            reference_ET = drawn.computed(self.learner, of_batch)
            ratios_E = drawn.log_ratios(reference_ET).sum(1)
            self.figures["kl_nats"] = float(ratios_E.mean())
            if kl.form == "k1_in_reward":
                scores_E = scores_E - kl.weight * ratios_E
            else:
                columns["reference_logprobs"] = reference_ET
        settings = self.settings
        advantages_E = policy.group_advantages(scores_E, drawn.group_E, settings.baseline, settings.standardise)
        self.figures["rows_with_advantage"] = float((advantages_E != 0).double().mean())
        return columns | {"advantages": advantages_E.float()}

    def _divisor(self, drawn: policy.Drawn) -> Tensor:
        """divisor_E of each row's sum."""
        if self.settings.divisor == "sequence":
            return drawn.lengths_E.float()
        if self.settings.divisor == "tokens":
            return drawn.constant(float(drawn.lengths_E.double().mean()))
        return drawn.constant(float(drawn.buffer.max_tokens))

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: the clipped surrogate summed over the answer, plus the KL term, over the row's divisor.

        Rows without advantage have no gradient and are not computed, unless the KL is in the loss.
        """
        if self.settings.kl.weight and self.settings.kl.form != "k1_in_reward":
            return self._computed(model, batch)
        rows = batch["advantages"].nonzero()[:, 0]
        if len(rows) == len(batch["advantages"]):
            return self._computed(model, batch)
        losses_B = policy.zero_losses(model, batch)
        if not len(rows):
            return losses_B
        return losses_B.index_add(0, rows, self._computed(model, policy.rows_of(batch, rows)))

    def _computed(self, model: GPT, batch: Batch) -> Tensor:
        settings = self.settings
        with policy.without_dropout(model, self._drops):
            predictions = answer_passes.predictions(model, batch)
        temperature = float(batch["temperature"][0])
        mask_BT = answer_passes.answer_mask(batch)
        logprobs_N, behaviour_N = policy.logprobs_of(predictions, temperature), batch["behaviour_logprobs"][mask_BT]
        ratio_N = (logprobs_N - behaviour_N).exp()
        advantages_N = batch["advantages"][predictions.rows_N]
        losses_N = policy.clipped_surrogate(ratio_N, advantages_N, settings.clip.low, settings.clip.high)
        if "reference_logprobs" not in batch:
            return policy.sum_by_row(losses_N, predictions) / batch["divisor"]
        log_ratio_N = logprobs_N - batch["reference_logprobs"][mask_BT]
        if settings.kl.form != "k2":
            k3_N = (-log_ratio_N).exp() + log_ratio_N - 1
            losses_N = losses_N + settings.kl.weight * (k3_N if settings.kl.form == "k3" else k3_N * ratio_N)
            return policy.sum_by_row(losses_N, predictions) / batch["divisor"]
        k2_B = _k2(log_ratio_N, predictions)
        return (policy.sum_by_row(losses_N, predictions) + settings.kl.weight * k2_B) / batch["divisor"]

    @torch.no_grad()
    def validate(self, model: GPT, batches: "policy.Batches") -> dict[str, float]:
        """Reward, divergence, length and share of ended answers on held-out prompts (`policy.held_out`)."""
        return policy.held_out(model, self.reference, batches, self.settings.kl.weight)


def _k2(log_ratio_N: Tensor, predictions: Predictions) -> Tensor:
    """k2_B of whole answers: squared token by token it would leave out the effect of a token on later ones."""
    return policy.sum_by_row(log_ratio_N, predictions).square() / 2
