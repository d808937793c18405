"""Kahneman-Tversky optimisation: answers with a thumb up or down, no pairs needed (Ethayarajh et al. 2024).

The reward of an answer is r = ln p(answer | prompt) - ln p_ref(answer | prompt), and z0 the mean reward of answers that
do not belong to their prompts, an estimate of the divergence from the reference (equation 7):

    liked       desirable_weight (1 - sigmoid(beta (r - z0)))
    disliked    undesirable_weight (1 - sigmoid(beta (z0 - r)))

z0 comes from the micro-batch: each answer is put behind the next row's prompt, as TRL's KTOTrainer does, without a
gradient, and is at least 0. So the loss of an example depends on the others of its micro-batch, which are the same
whatever the number of threads, and needs two prompts or more. Of the reference, ln p of the rated answers is computed
once a record; that of the mismatched ones at every update, since a new order makes new ones. Values are those of TRL
(tests/golden/preference_losses.json).

Shapes: B examples with K answers each, S = K B rows, T positions, E examples of a table.
"""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section
from pipeline.contracts import IGNORED, Batch, Examples, Learner
from pipeline.errors import UserError
from pipeline.losses import Loss, answer_logprobs, reference_logprobs, share_above
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.policy import require_reference

_NAMES = ("reference_first", "reference_second")


class Settings(Section):
    """Strength of the loss and weights of both kinds of answers."""

    takes: ClassVar[frozenset[str]] = frozenset({"thumbs"})
    roles: ClassVar[frozenset[str]] = frozenset({"reference"})
    by_example: ClassVar[bool] = False
    beta: float = Field(gt=0, examples=[0.1])
    """How strongly the model is held to the reference: larger values keep it nearer."""
    desirable_weight: float = Field(default=1.0, ge=0, examples=[1.0, 1.5])
    """Weight of liked answers. Where they are rarer, weights whose products with the numbers of both kinds are about
    equal (their ratio 1 to 4/3, equation 8)."""
    undesirable_weight: float = Field(default=1.0, ge=0, examples=[1.0])
    """Weight of disliked answers."""


class _Valued(NamedTuple):
    """A batch of rated answers."""

    losses_B: Tensor
    rewards_KB: Tensor
    """beta r."""
    z0: Tensor


def build(settings: Settings, learner: Learner) -> "Kto":
    """The loss. Raises UserError without a reference model of the same vocabulary."""
    return Kto(settings, learner, require_reference(learner, "kto"))


class Kto(Loss):
    """Value of gains and losses relative to a reference point."""

    def __init__(self, settings: Settings, learner: Learner, reference: GPT) -> None:
        self.settings, self.learner, self.reference = settings, learner, reference

    def columns(self, _model: GPT, examples: Examples) -> dict[str, Tensor]:
        """reference_first_E and, of preferences, reference_second_E: ln p of the answers under the reference, nats."""
        logprobs_KE = reference_logprobs(self.learner, self.reference, examples)
        return dict(zip(_NAMES, logprobs_KE, strict=False))

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B, between 0 and the larger weight; of a preference the mean over both answers.

        Raises:
            UserError: a single prompt, to which no other one's answer can be given.
        """
        if batch["good"].shape[1] < 2:
            raise UserError(
                "params.yaml: loss.name is kto, which compares the answers of a micro-batch with each other, and "
                "ordering.batch_size is 1; raise it"
            )
        return self._valued(model, batch).losses_B

    @torch.no_grad()
    def validate(self, model: GPT, batches: Iterable[Batch]) -> dict[str, float]:
        """loss, thumb_accuracy (share of answers on the right side of z0, those on it half), margin (mean reward of
        liked answers less that of disliked ones; 0 without both) and z0_nats.
        """
        with autocast(self.learner.compute):
            valued = [(self._valued(model, batch), batch["good"]) for batch in batches]
        losses_E = torch.cat([one.losses_B for one, _ in valued]).double()
        rewards = torch.cat([one.rewards_KB.flatten() for one, _ in valued]).double()
        above = torch.cat([(one.rewards_KB - self.settings.beta * one.z0).flatten() for one, _ in valued]).double()
        good = torch.cat([good_KB.flatten() for _, good_KB in valued])
        right = torch.where(good, above, -above)
        both = bool(good.any()) and not bool(good.all())
        return {
            "loss": float(losses_E.mean()),
            "thumb_accuracy": share_above(right),
            "margin": float(rewards[good].mean() - rewards[~good].mean()) if both else 0.0,
            "z0_nats": float(torch.stack([one.z0 for one, _ in valued]).double().mean()),
        }

    def _valued(self, model: GPT, batch: Batch) -> _Valued:
        settings, good_KB = self.settings, batch["good"]
        logprobs_S, _ = answer_logprobs(self.learner, model, batch)
        reference_S = torch.cat([batch[name] for name in _NAMES if name in batch])
        gained_KB = (logprobs_S - reference_S).reshape(good_KB.shape)
        z0 = self._z0(model, batch)
        losses_KB = 1 - torch.sigmoid(settings.beta * torch.where(good_KB, gained_KB - z0, z0 - gained_KB))
        weights_KB = torch.where(good_KB, settings.desirable_weight, settings.undesirable_weight)
        return _Valued((weights_KB * losses_KB).mean(0), settings.beta * gained_KB.detach(), z0)

    @torch.no_grad()
    def _z0(self, model: GPT, batch: Batch) -> Tensor:
        """The mean reward of mismatched answers, at least 0; 0 for a single prompt."""
        if batch["good"].shape[1] < 2:
            return batch["inputs"].new_zeros((), dtype=torch.float32)
        mixed = mismatched(batch, self.learner.tokenizer.pad, model.room())
        ours_S, theirs_S = (answer_logprobs(self.learner, one, mixed)[0] for one in (model, self.reference))
        return (ours_S - theirs_S).mean().clamp(min=0)


def mismatched(batch: Batch, pad: int, room: int) -> Batch:
    """The batch in which every prompt is followed by the answer of the row before; the first by that of the last.

    Args:
        batch: inputs_ST and targets_ST of one answer a row.
        pad: the id in padding.
        room: the model's context in tokens; an answer that is too long for it loses its end.
    """
    inputs_ST, targets_ST = batch["inputs"], batch["targets"]
    taught_ST = targets_ST != IGNORED
    begins_S1 = taught_ST.int().argmax(1, keepdim=True)  # position of the prompt's last token: it predicts the answer
    lengths_S1 = taught_ST.sum(1, keepdim=True)
    index_A = torch.arange(int(lengths_S1.max()), device=inputs_ST.device)
    answers_SA = targets_ST.gather(1, (begins_S1 + index_A).clamp(max=targets_ST.shape[1] - 1)).roll(1, 0)
    lengths_S1 = lengths_S1.roll(1, 0)
    index_T = torch.arange(min(int((begins_S1 + lengths_S1).max()), room), device=inputs_ST.device)
    place_ST = index_T - begins_S1  # in the answer, of the token that the position predicts
    predicted_ST = answers_SA.gather(1, place_ST.clamp(0, len(index_A) - 1))
    answered_ST = (place_ST >= 0) & (place_ST < lengths_S1)
    prompt_ST = inputs_ST.gather(1, index_T.expand_as(place_ST).clamp(max=inputs_ST.shape[1] - 1))
    given_ST = torch.where(
        answered_ST, predicted_ST.roll(1, 1), pad
    )  # a token is read one position after its prediction
    return batch | {
        "inputs": torch.where(place_ST <= 0, prompt_ST, given_ST),
        "targets": torch.where(answered_ST, predicted_ST, IGNORED),
    }
