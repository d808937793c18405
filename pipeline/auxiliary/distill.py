"""Distillation: the student learns what a teacher says at every place, not the truth alone (Hinton et al. 2015).

Section 2: soft targets at a temperature, their cross-entropy weighed by its square, mixed with the hard loss. It serves
every objective: classes, words and tokens alike. Hidden states may be matched as well: how alike the texts of a batch
are to the model, so teacher and student may differ in width and depth (Tung & Mori 2019, equations 2 and 4). The
teacher is the recipe's `reference`; a smaller student is the start model cut to `depth` blocks.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.auxiliary import Losses
from pipeline.config.section import Section, Share
from pipeline.contracts import Batch, Learner, Predictions, per_example
from pipeline.errors import UserError
from pipeline.model.gpt import GPT, Shown


class Settings(Section):
    temperature: Annotated[float, Field(gt=0)]
    """Divides the scores of both; larger shows more of what the teacher holds for less likely."""
    soft_share: Share
    """Share of the loss that listens to the teacher; the rest to the truth."""
    hidden: Annotated[float, Field(ge=0)]
    """Weight of matching the last hidden states' likeness; 0: scores alone."""


def build(settings: Settings, learner: Learner) -> Losses:
    """The losses of the student.

    Raises:
        UserError: no teacher, one of another vocabulary, or one that never learned these labels.
    """
    if learner.reference is None:
        raise UserError("params.yaml: auxiliary distill needs a teacher, and pretraining has no `reference`")
    teacher = learner.reference()
    _require_fit(learner.model, teacher)
    teacher.to(learner.model.embed.weight.device).requires_grad_(False).eval()
    return Distilled(settings, learner, teacher).losses


def _require_fit(student: GPT, teacher: GPT) -> None:
    heads = [None if model.score is None else model.score.out_features for model in (student, teacher)]
    if heads[0] is not None and heads[0] != heads[1]:
        raise UserError(
            f"params.yaml: the recipe's `reference` has {heads[1] or 'no'} classes, the student {heads[0]}; "
            "name a model that was trained on these labels"
        )
    if student.config.vocab_size != teacher.config.vocab_size:
        raise UserError(
            f"params.yaml: the recipe's `reference` knows {teacher.config.vocab_size} tokens, the student "
            f"{student.config.vocab_size}; name a model of the same vocabulary"
        )


class Distilled:
    def __init__(self, settings: Settings, learner: Learner, teacher: GPT) -> None:
        self.settings, self.learner, self.teacher = settings, learner, teacher

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: (1 - s) hard + s t^2 KL(teacher || student) + h unlikeness, nats."""
        student, hidden_BD = self._asked(model, batch)
        with torch.no_grad():
            teacher, taught_BD = self._asked(self.teacher, batch)
        share, t = self.settings.soft_share, self.settings.temperature
        hard_N = F.cross_entropy(student.scores_NC.float(), student.targets_N, reduction="none")
        wanted_NC = (teacher.scores_NC.float() / t).log_softmax(-1)
        given_NC = (student.scores_NC.float() / t).log_softmax(-1)
        soft_N = F.kl_div(given_NC, wanted_NC, reduction="none", log_target=True).sum(-1) * t**2
        losses_B = per_example((1 - share) * hard_N + share * soft_N, student)
        return losses_B + self.settings.hidden * unlike(hidden_BD, taught_BD) if self.settings.hidden else losses_B

    def _asked(self, model: GPT, batch: Batch) -> tuple[Predictions, Tensor]:
        """What the model says, and its mean last hidden state over each text."""
        if not self.settings.hidden:
            return self.learner.objective.predictions(model, batch), torch.empty(0)
        last = model.config.n_layers
        with model.shown(Shown(hidden=[last])) as seen:
            found = self.learner.objective.predictions(model, batch)
        real_BT1 = self.learner.real(batch["inputs"])[..., None]
        hidden_BTD = seen.hidden[last][:, : real_BT1.shape[1]]
        return found, (hidden_BTD * real_BT1).sum(1) / real_BT1.sum(1).clamp(min=1)


def unlike(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """unlike_B: squared difference between the rows of both likeness matrices, each row of unit length."""
    ours, theirs = (F.normalize(x @ x.T, dim=1) for x in (student_BD.float(), teacher_BD.float()))
    return (ours - theirs).square().sum(1)
