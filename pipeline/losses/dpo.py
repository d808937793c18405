"""Direct preference optimisation: pairs of answers train the model, without a reward model (Rafailov et al. 2023).

The reward of an answer is the gain in its likelihood over a frozen reference, r = ln p(answer | prompt) -
ln p_ref(answer | prompt): a sum over its tokens, or their mean with `length_normalised`. With d = r(chosen) -
r(rejected):

    sigmoid   -ln sigmoid(beta d)                            equation 7; with smoothing e: (1 - e) of that and e of the
                                                             swapped pair (cDPO, Mitchell 2023)
    robust    ((1 - e) of that - e of the swapped pair) / (1 - 2 e)   unbiased under a share e of swapped pairs
                                                             (Chowdhury et al. 2024, equation 8)
    ipo       (d - 1 / (2 beta))^2                           Azar et al. 2023, equation 17

The log-probabilities of the reference (the recipe's `reference`) are computed once a record, before the first update.
Values are those of TRL's DPOTrainer (tests/golden/preference_losses.json); its ipo is always length-normalised.

Shapes: B pairs, S = 2B rows, E pairs of a table.
"""

from collections.abc import Iterable
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.section import Section
from pipeline.contracts import Batch, Examples, Learner
from pipeline.losses import Loss, answer_logprobs, pair_figures, reference_logprobs
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.policy import require_reference


class Settings(Section):
    """Form and strength of the loss."""

    takes: ClassVar[frozenset[str]] = frozenset({"pairs"})
    roles: ClassVar[frozenset[str]] = frozenset({"reference"})
    head: ClassVar[str] = "language"
    by_example: ClassVar[bool] = True
    beta: float = Field(gt=0, examples=[0.1])
    """How strongly the model is held to the reference: larger values keep it nearer."""
    form: Literal["sigmoid", "robust", "ipo"] = Field(default="sigmoid", examples=["sigmoid", "ipo"])
    """sigmoid: DPO; robust: for a known share of swapped pairs; ipo: a target for the difference, which is not driven
    to infinity where every pair is of one mind."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, examples=[0.0, 0.1])
    """sigmoid and robust: the assumed share of pairs whose judgement is swapped."""
    length_normalised: bool = Field(default=False, examples=[False, True])
    """Whether an answer counts by the mean over its tokens, not by their sum, so that longer ones are not favoured."""
    sft_weight: float = Field(default=0.0, ge=0, examples=[0.0, 1.0])
    """Factor of the mean -ln p of the chosen answer's tokens, added to the loss, so that its likelihood does not fall
    with that of the rejected one (Pang et al. 2024, equation 1); 0: none."""

    @model_validator(mode="after")
    def _smooths_what_can_be_smoothed(self) -> "Settings":
        if self.form == "ipo" and self.label_smoothing:
            raise ValueError(f"label_smoothing is {self.label_smoothing} and form ipo, which has none; set it to 0")
        if self.form == "robust" and not self.label_smoothing:
            raise ValueError("form robust needs the share of swapped pairs; set label_smoothing, or form to sigmoid")
        return self


class _Compared(NamedTuple):
    """A batch of pairs under the model and the reference."""

    losses_B: Tensor
    chosen_B: Tensor
    """Rewards of the chosen answers: beta r."""
    rejected_B: Tensor


def build(settings: Settings, learner: Learner) -> "Dpo":
    """The loss. Raises UserError without a reference model of the same vocabulary."""
    return Dpo(settings, learner)


class Dpo(Loss):
    """Comparison of two answers to a prompt, relative to a reference model."""

    def __init__(self, settings: Settings, learner: Learner) -> None:
        self.settings, self.learner = settings, learner

    def columns(self, _model: GPT, examples: Examples) -> dict[str, Tensor]:
        """reference_chosen_E and reference_rejected_E: ln p of both answers under the reference model, nats."""
        reference = require_reference(self.learner, "dpo")  # not kept: it is needed no more
        chosen_E, rejected_E = reference_logprobs(self.learner, reference, examples)
        return {"reference_chosen": chosen_E, "reference_rejected": rejected_E}

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B; of form ipo they have no unit."""
        return self._compared(model, batch).losses_B

    @torch.no_grad()
    def validate(self, model: GPT, batches: Iterable[Batch]) -> dict[str, float]:
        """loss, pair_accuracy (share of pairs whose chosen answer has the higher reward, ties half) and margin (mean
        difference of the rewards).
        """
        with autocast(self.learner.compute):
            compared = [self._compared(model, batch) for batch in batches]
        return pair_figures(*(torch.cat([part[place] for part in compared]) for place in range(3)))

    def _compared(self, model: GPT, batch: Batch) -> _Compared:
        settings = self.settings
        logprobs_S, lengths_S = answer_logprobs(self.learner, model, batch)
        reference_S = torch.cat((batch["reference_chosen"], batch["reference_rejected"]))
        gained_S, divisor_S = logprobs_S - reference_S, lengths_S.clamp(min=1)
        if settings.length_normalised:
            gained_S = gained_S / divisor_S
        chosen_B, rejected_B = gained_S.chunk(2)
        losses_B = self._losses(chosen_B - rejected_B)
        if settings.sft_weight:
            losses_B = losses_B - settings.sft_weight * (logprobs_S / divisor_S).chunk(2)[0]
        return _Compared(losses_B, settings.beta * chosen_B.detach(), settings.beta * rejected_B.detach())

    def _losses(self, difference_B: Tensor) -> Tensor:
        beta, smoothing = self.settings.beta, self.settings.label_smoothing
        if self.settings.form == "ipo":
            return (difference_B - 1 / (2 * beta)).square()
        as_judged_B, swapped_B = -F.logsigmoid(beta * difference_B), -F.logsigmoid(-beta * difference_B)
        if self.settings.form == "robust":
            return ((1 - smoothing) * as_judged_B - smoothing * swapped_B) / (1 - 2 * smoothing)
        return (1 - smoothing) * as_judged_B + smoothing * swapped_B if smoothing else as_judged_B
