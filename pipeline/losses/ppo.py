"""PPO: clipped policy gradient with a learned value of every token (Schulman et al. 2017).

For language models as in Ziegler et al. 2019 and Ouyang et al. 2022. The reward of a token is -kl_weight ln(p / q), p
of the policy that answered and q of the reference; that of the last token has the judge's score besides. Advantages
are estimated by GAE once a block, before its first update, and whitened over the answer tokens of the block. Losses
are means over the answer tokens of the block, so long answers weigh more. Several epochs over a block are
`experience.updates` and the ordering.

The value model is a network of its own: a copy of the judge's reward model, trunk and head, where the judge has one of
this vocabulary (Ouyang et al. 2022, appendix C.4); else a copy of the model before training with a head that starts at
0. It is trained and part of the training state, and never in the model folder. Of a copy of the model the weights that
the tuner freezes are shared with it.

Shapes: E rollouts of a buffer, B rows of a batch, T positions, N answer tokens of a batch, D width, C ids.
"""

import copy
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline import answer_passes, policy
from pipeline.config.section import Section, Share
from pipeline.contracts import Batch, Examples, Learner, Predictions
from pipeline.errors import UserError
from pipeline.losses import Loss
from pipeline.model.gpt import GPT


class Clip(Section):
    """Range of the ratio to the policy that answered."""

    low: float = Field(ge=0, lt=1)
    """The ratio counts from 1 - low."""
    high: float = Field(ge=0)
    """The ratio counts up to 1 + high."""


class Value(Section):
    """Loss of the value model."""

    weight: float = Field(ge=0)
    """Factor of the squared error beside the policy's loss."""
    clip: float | None = Field(gt=0)
    """Largest change of a value within a block that lowers the loss; null: no limit."""


class Settings(Section):
    """Advantages, limits and the value model."""

    takes: ClassVar[frozenset[str]] = frozenset({"prompts"})
    roles: ClassVar[frozenset[str]] = frozenset({"reference", "judge"})
    source: ClassVar[str] = "rollouts"
    trains_model: ClassVar[bool] = True
    gamma: Share = Field(examples=[1.0])
    """Discount of the reward of a later token."""
    gae_lambda: Share = Field(examples=[0.95, 1.0])
    """Decay of GAE; 1: the whole return, more variance; 0: the next value alone, more bias."""
    clip: Clip = Field(examples=[{"low": 0.2, "high": 0.2}])
    """Limits of the ratio to the policy that answered."""
    value: Value = Field(examples=[{"weight": 0.5, "clip": 0.2}, {"weight": 0.5, "clip": None}])
    """Weight and limit of the value model's loss."""
    whiten: bool = Field(examples=[True, False])
    """Advantages with mean 0 and variance 1 over the answer tokens of a block."""
    kl_weight: float = Field(ge=0, examples=[0.05, 0.0])
    """Score that a nat of divergence from the reference costs."""
    entropy: float = Field(ge=0, examples=[0.0, 0.01])
    """Factor of the policy's entropy, which is subtracted from the loss."""


def build(settings: Settings, learner: Learner) -> "PPO":
    """The loss with its reference and value model. Raises UserError for a reference of another vocabulary."""
    return PPO(settings, learner, policy.require_reference(learner, "ppo"))


class ValueModel(nn.Module):
    """A network with one number per position: the expected reward from there on."""

    def __init__(self, trunk: GPT, head_1D: Tensor) -> None:
        super().__init__()
        self.trunk = trunk
        trunk.head = trunk.score = None
        self.head = nn.Linear(head_1D.shape[1], 1, bias=False)
        self.head.weight = nn.Parameter(head_1D.detach().clone())
        self.eval()  # no dropout

    def forward(self, batch: Batch) -> Tensor:
        """values_N at the positions that predict the tokens of answers, float32."""
        values_N: Tensor = self.head(answer_passes.hidden_states(self.trunk, batch))[:, 0].float()
        return values_N


def value_model(learner: Learner) -> ValueModel:
    """The value model before training; see the module.

    Raises:
        UserError: the judge's reward model has a shorter context than the trained model.
    """
    model, judged = learner.model, getattr(learner.judge, "model", None)
    device = model.embed.weight.device
    if isinstance(judged, GPT) and judged.score is not None and judged.config.vocab_size == model.config.vocab_size:
        if judged.config.context_length < model.config.context_length:
            raise UserError(
                f"params.yaml: judge has a context of {judged.config.context_length} tokens, the trained model "
                f"{model.config.context_length}; take a reward model of the same base"
            )
        trunk = copy.deepcopy(judged).to(device).requires_grad_(True)
        return ValueModel(trunk, judged.score.weight[:1].to(device))
    frozen: dict[int, Any] = {id(p): p for p in model.parameters() if not p.requires_grad}
    return ValueModel(copy.deepcopy(model, frozen), torch.zeros(1, model.config.d_model, device=device))


class PPO(Loss):
    """Clipped surrogate, value loss and entropy; without dropout, whose ratio would be noise."""

    def __init__(self, settings: Settings, learner: Learner, reference: GPT) -> None:
        super().__init__()
        self.settings, self.learner, self.reference = settings, learner, reference
        self.value = value_model(learner)
        self.modules["value"] = self.value
        self.figures: dict[str, float] = {}
        """Of the newest block, for the tracker."""
        self._drops = policy.has_dropout(learner.model)

    def columns(self, _model: GPT, examples: Examples) -> dict[str, Tensor]:
        """Of a block: advantages, returns and values [E, T]; divisor (mean answer length) and temperature [E]."""
        settings, buffer = self.settings, cast(policy.Buffer, examples)
        drawn = policy.Drawn(buffer)
        mask_ET = drawn.mask_ET
        rewards_ET = torch.zeros(mask_ET.shape, dtype=torch.float64)
        self.figures = {}
        if settings.kl_weight:
            of_batch = policy.model_logprobs(self.reference, buffer.temperature)
            ratios_ET = drawn.log_ratios(drawn.computed(self.learner, of_batch))
            self.figures["kl_nats"] = float(ratios_ET.sum(1).mean())
            rewards_ET -= settings.kl_weight * ratios_ET
        rewards_ET[drawn.last_ET] += buffer.scores_E.double().cpu()
        values_ET = drawn.computed(self.learner, self.value)
        advantages_ET = policy.generalised_advantages(
            rewards_ET, values_ET, mask_ET, settings.gamma, settings.gae_lambda
        )
        returns_ET = advantages_ET + values_ET
        if settings.whiten:
            advantages_ET = policy.whitened(advantages_ET, mask_ET)
        return {
            "advantages": advantages_ET.float(),
            "returns": returns_ET.float(),
            "values": values_ET,
            "divisor": drawn.constant(float(drawn.lengths_E.double().mean())),
            "temperature": drawn.constant(buffer.temperature),
        }

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: surrogate + weight x value loss - factor x entropy, summed over the answer, over the divisor."""
        settings, mask_BT = self.settings, answer_passes.answer_mask(batch)
        with policy.without_dropout(model, self._drops):
            predictions = answer_passes.predictions(model, batch)
        temperature = float(batch["temperature"][0])
        ratio_N = (policy.logprobs_of(predictions, temperature) - batch["behaviour_logprobs"][mask_BT]).exp()
        advantages_N = batch["advantages"][mask_BT]
        losses_N = policy.clipped_surrogate(ratio_N, advantages_N, settings.clip.low, settings.clip.high)
        if settings.value.weight:
            losses_N = losses_N + settings.value.weight * self._value_losses(batch, mask_BT)
        if settings.entropy:
            losses_N = losses_N - settings.entropy * _entropy(policy.at_temperature(predictions, temperature))
        return policy.sum_by_row(losses_N, predictions) / batch["divisor"]

    def _value_losses(self, batch: Batch, mask_BT: Tensor) -> Tensor:
        """losses_N: half the squared error, of the value or of its clipped change, whichever is larger."""
        values_N: Tensor = self.value(batch)
        before_N, returns_N = batch["values"][mask_BT], batch["returns"][mask_BT]
        errors_N = (values_N - returns_N).square()
        if (limit := self.settings.value.clip) is not None:
            clipped_N = before_N + (values_N - before_N).clamp(-limit, limit)
            errors_N = torch.max(errors_N, (clipped_N - returns_N).square())
        return errors_N / 2

    def validate(self, model: GPT, batches: policy.Batches) -> dict[str, float]:
        """Reward, divergence, length and share of ended answers on held-out prompts (`policy.held_out`)."""
        return policy.held_out(model, self.reference, batches, self.settings.kl_weight)


def _entropy(predictions: Predictions) -> Tensor:
    """entropies_N of the distributions, nats."""
    logprobs_NC = predictions.scores_NC.float().log_softmax(-1)
    entropies_N: Tensor = -(logprobs_NC.exp() * logprobs_NC).sum(-1)
    return entropies_N
