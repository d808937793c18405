"""Attention mass of chosen heads on given words, or on a pattern, in held-out labelled texts.

The quantity that the loss `attention` raises: measures its effect, and the attention of heads without it.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from pipeline.config.section import Count, Positive, Section
from pipeline.errors import UserError
from pipeline.evaluation import Subject, records, slices
from pipeline.losses.attention import attention_mass, spellings, target_mask
from pipeline.model.capture import Capture
from pipeline.tasks import Request, padded


class Settings(Section):
    """Split, source, heads and the target of their attention."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the labelled records to measure on."""
    source: str | None = Field(None, examples=[None])
    """Measure only on the records of this source of `download.sources`; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Texts in a batch; their number does not change the metrics."""
    heads: dict[Count, Annotated[list[Count], Field(min_length=1)]] = Field(min_length=1, examples=[{1: [0, 1]}])
    """Block index from 0 -> indices of its measured heads."""
    towards: Literal["words", "previous", "first"] = Field(examples=["words", "previous", "first"])
    """Target of the attention: the `words`, the previous token, or the first token."""
    words: list[str] = Field(examples=[["gel"]])
    """Target words, matched with and without a space before them; unused unless `towards` is words."""


@torch.no_grad()
def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """attention_mass: the mean share of a head's attention on the target, over tokens that have one; attention_texts:
    the number of texts with a target; details: the mass by head.

    Raises:
        UserError: no text contains any of the words.
    """
    tokenizer, model = subject.tokenizer, subject.model
    task = subject.labelling("attention")
    rows = records(subject, "labelled", settings.split, settings.source)
    texts = [task.prompt(Request(row["text"])) for row in rows]
    spelled = spellings(tokenizer.encode, settings.words)
    sums_H, tokens, texts_with_target = torch.zeros(sum(map(len, settings.heads.values())), dtype=torch.float64), 0.0, 0
    for part in slices(len(texts), settings.batch_size):
        inputs_BT = padded(texts[part], tokenizer.pad).to(model.embed.weight.device)
        with model.capturing(Capture(attentions=settings.heads)) as seen:
            model.hidden(inputs_BT)
        target_BTT = target_mask(inputs_BT, settings.towards, spelled)
        mass_BHT, counts_BT = attention_mass(target_BTT, inputs_BT != tokenizer.pad, seen, settings.heads)
        sums_H += (mass_BHT * counts_BT[:, None]).double().sum((0, 2)).cpu()
        tokens += float(counts_BT.sum())
        texts_with_target += int(counts_BT.any(1).sum())
    if not tokens:
        raise UserError(
            f"evaluations.{subject.name}.measures.attention.words is {settings.words}: no text contains any of them; "
            "name words of the texts"
        )
    names = [f"block {layer}, head {head}" for layer, heads in settings.heads.items() for head in heads]
    by_head = {name: float(value / tokens) for name, value in zip(names, sums_H, strict=True)}
    return {"attention_mass": float(sums_H.mean() / tokens), "attention_texts": float(texts_with_target)}, {
        "by_head": by_head
    }
