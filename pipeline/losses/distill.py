"""Knowledge distillation: the student learns a teacher's soft targets beside the hard targets (Hinton et al. 2015).

Section 2: soft targets at a temperature, their cross-entropy times its square, mixed with the hard loss. It works with
every task: classes, words and tokens. Hidden states can be matched too, by the similarity of the texts of a batch,
so teacher and student may differ in width and depth (Tung & Mori 2019, equations 2 and 4). The teacher is the recipe's
`reference`; a smaller student is the start model cut to `depth` blocks.

Shapes: B examples, T positions, D model width, N predicted positions, C choices.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.section import Section, Share
from pipeline.contracts import Batch, Learner, Predictions, per_example
from pipeline.errors import UserError
from pipeline.losses import Loss
from pipeline.model.capture import Capture
from pipeline.model.gpt import GPT


class Settings(Section):
    """Temperature and the weights of the losses."""

    takes: ClassVar[frozenset[str]] = frozenset({"tokens", "classes"})
    roles: ClassVar[frozenset[str]] = frozenset({"reference"})
    temperature: float = Field(gt=0, examples=[2.0])
    """Divides the logits of teacher and student; larger values give unlikely choices more weight."""
    soft_share: Share = Field(examples=[0.5])
    """Weight of the soft loss; the hard loss has the rest."""
    hidden: float = Field(ge=0, examples=[0.5, 0.0])
    """Factor of the loss on the similarity of last hidden states; 0: only logits are matched. It compares the examples
    of a micro-batch with each other, so it needs `schedule.accumulate: 1` and no privacy."""

    @property
    def own_families(self) -> bool:
        """Whether the network must be one of ours: hidden states are recorded there only."""
        return bool(self.hidden)

    @property
    def by_example(self) -> bool:
        """Whether the loss of an example depends on no other example."""
        return not self.hidden


def build(settings: Settings, learner: Learner) -> "Distillation":
    """The distillation losses of the student.

    Raises:
        UserError: no teacher, or a teacher with another vocabulary or without the student's classes.
    """
    if learner.reference is None:
        raise UserError("params.yaml: loss.name is distill, which needs a teacher, and pretraining has no `reference`")
    teacher = learner.reference()
    _require_fit(learner.model, teacher)
    teacher.to(learner.model.embed.weight.device).requires_grad_(False).eval()
    return Distillation(settings, learner, teacher)


def _require_fit(student: GPT, teacher: GPT) -> None:
    heads = [None if model.score is None else model.score.out_features for model in (student, teacher)]
    if heads[0] is not None and heads[0] != heads[1]:
        raise UserError(
            f"params.yaml: reference has {heads[1] or 'no'} classes, the student {heads[0]}; "
            "name a model that was trained on these labels"
        )
    if student.config.vocab_size != teacher.config.vocab_size:
        raise UserError(
            f"params.yaml: reference knows {teacher.config.vocab_size} tokens, the student "
            f"{student.config.vocab_size}; name a model of the same vocabulary"
        )


class Distillation(Loss):
    """Cross-entropy with a teacher's soft targets."""

    def __init__(self, settings: Settings, learner: Learner, teacher: GPT) -> None:
        self.settings, self.learner, self.teacher = settings, learner, teacher

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: (1 - s) hard + s t^2 KL(teacher || student) + h similarity loss, nats."""
        student, hidden_BD = self._predictions(model, batch)
        with torch.no_grad():
            teacher, teacher_BD = self._predictions(self.teacher, batch)
        share, t = self.settings.soft_share, self.settings.temperature
        hard_N = F.cross_entropy(student.scores_NC.float(), student.targets_N, reduction="none")
        teacher_NC = (teacher.scores_NC.float() / t).log_softmax(-1)
        student_NC = (student.scores_NC.float() / t).log_softmax(-1)
        soft_N = F.kl_div(student_NC, teacher_NC, reduction="none", log_target=True).sum(-1) * t**2
        losses_B = per_example((1 - share) * hard_N + share * soft_N, student)
        if not self.settings.hidden:
            return losses_B
        return losses_B + self.settings.hidden * similarity_loss(hidden_BD, teacher_BD)

    def _predictions(self, model: GPT, batch: Batch) -> tuple[Predictions, Tensor]:
        """The model's predictions, and hidden_BD, its last hidden state averaged over each text (empty if unused)."""
        if not self.settings.hidden:
            return self.learner.task.predictions(model, batch), torch.empty(0)
        last = model.config.n_layers
        with model.capturing(Capture(hidden=[last])) as seen:
            predictions = self.learner.task.predictions(model, batch)
        mask_BT1 = self.learner.token_mask(batch["inputs"])[..., None]
        hidden_BTD = seen.hidden[last][:, : mask_BT1.shape[1]]
        return predictions, (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1)


def similarity_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """losses_B: squared difference between the rows of both similarity matrices [B, B], each row of unit norm."""
    ours, theirs = (F.normalize(x @ x.T, dim=1) for x in (student_BD.float(), teacher_BD.float()))
    return (ours - theirs).square().sum(1)
