"""Attention supervision: chosen heads are trained to attend to given words or to a fixed pattern.

Words: the negative logarithm of the attention mass on them, at every later token (a loss on attention against given
spans, as in Stacey et al. 2022, "Supervising model attention with human explanations"). Patterns: the previous token,
or the first (Deshpande & Narasimhan 2020, "Guiding attention for self-supervised learning with transformers",
section 3). Texts without any of the words have no such loss.

Shapes: B examples, T positions, H supervised heads.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config.section import Count, Section
from pipeline.contracts import Batch, Learner
from pipeline.errors import UserError
from pipeline.losses import Loss
from pipeline.model.capture import Capture
from pipeline.model.gpt import GPT


class Settings(Section):
    """Weight of the loss, supervised heads and their target."""

    takes: ClassVar[frozenset[str]] = frozenset({"tokens", "classes"})
    roles: ClassVar[frozenset[str]] = frozenset()
    own_families: ClassVar[bool] = True
    weight: float = Field(gt=0, examples=[1.0])
    """Factor of the attention loss; lower it if accuracy suffers."""
    heads: dict[Count, Annotated[list[Count], Field(min_length=1)]] = Field(min_length=1, examples=[{1: [0, 1]}])
    """Block index from 0 -> indices of its supervised heads."""
    towards: Literal["words", "previous", "first"] = Field(examples=["words"])
    """Target of the attention: the `words`, the previous token, or the first token."""
    words: list[str] = Field(examples=[["gel"]])
    """Target words, matched with and without a space before them; empty unless `towards` is words."""

    @model_validator(mode="after")
    def _words_go_with_words(self) -> "Settings":
        if (self.towards == "words") != bool(self.words):
            raise ValueError(
                f"towards is {self.towards!r} and words {self.words}; words go with towards: words, and only there"
            )
        return self


def build(settings: Settings, learner: Learner) -> "SupervisedAttention":
    """The task's losses plus the weighted attention loss.

    Raises:
        UserError: heads that the model does not have.
    """
    shape = learner.model.config
    for layer, heads in settings.heads.items():
        if layer >= shape.n_layers or max(heads) >= shape.n_heads:
            raise UserError(
                f"params.yaml: loss.heads names block {layer}, heads {heads}; the model has blocks 0 to "
                f"{shape.n_layers - 1} of heads 0 to {shape.n_heads - 1}"
            )
    return SupervisedAttention(settings, learner)


class SupervisedAttention(Loss):
    """Cross-entropy with the attention loss."""

    def __init__(self, settings: Settings, learner: Learner) -> None:
        self.settings, self.learner = settings, learner
        self.spellings = spellings(learner.tokenizer.encode, settings.words)

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: the task's loss plus `weight` times the mean of -log(attention mass on the target), nats."""
        with model.capturing(Capture(attentions=self.settings.heads)) as seen:
            losses_B = self.learner.task.losses(model, batch)
        target_BTT = target_mask(batch["inputs"], self.settings.towards, self.spellings)
        if "segments" in batch:  # with a document mask no other document can be attended to
            target_BTT = target_BTT & (batch["segments"][:, :, None] == batch["segments"][:, None, :])
        mask_BT = self.learner.token_mask(batch["inputs"])
        mass_BHT, counts_BT = attention_mass(target_BTT, mask_BT, seen, self.settings.heads)
        attention_BT = -mass_BHT.clamp(min=1e-6).log().mean(1) * counts_BT
        return losses_B + self.settings.weight * attention_BT.sum(1) / counts_BT.sum(1).clamp(min=1)


def spellings(encode: Callable[[str], list[int]], words: Sequence[str]) -> list[tuple[int, ...]]:
    """Token ids of every word, with and without a space before it."""
    return sorted({tuple(encode(text)) for word in words for text in (word, f" {word}")})


def attention_mass(
    target_BTT: Tensor, mask_BT: Tensor, seen: Capture, heads: Mapping[int, Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """mass_BHT: the share of these heads' attention on the target; counts_BT: 1 at tokens with a target, else 0."""
    T = target_BTT.shape[1]
    masses = [
        # the keys of virtual tokens come before the text's
        (seen.attentions[layer][:, chosen, :T, -T:].float() * target_BTT[:, None]).sum(-1)
        for layer, chosen in heads.items()
    ]
    return torch.cat(masses, dim=1), (target_BTT.any(-1) & mask_BT).float()


def target_mask(inputs_BT: Tensor, towards: str, spelled: Sequence[tuple[int, ...]]) -> Tensor:
    """target_BTT: true where the query token (row) should attend to the key token (column)."""
    B, T = inputs_BT.shape
    at = torch.arange(T, device=inputs_BT.device)
    if towards == "previous":
        return (at[:, None] - 1 == at)[None].expand(B, T, T)
    if towards == "first":
        return ((at == 0)[None, :] & (at > 0)[:, None])[None].expand(B, T, T)
    spans_BT = torch.zeros_like(inputs_BT, dtype=torch.bool)
    for ids in spelled:
        for start in range(T - len(ids) + 1):
            same_B = (inputs_BT[:, start : start + len(ids)] == inputs_BT.new_tensor(ids)).all(1)
            spans_BT[:, start : start + len(ids)] |= same_B[:, None]
    return spans_BT[:, None, :] & (at[:, None] > at)[None]
