"""How much attention chosen heads put on given words, or on a pattern, in held-out labelled texts.

The same masses that auxiliary loss `attention` pulls up, so that guidance can be seen to have worked, and how far heads
look there without it.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from pipeline.auxiliary.attention import mass, spellings, targets
from pipeline.config.section import Count, Positive, Section
from pipeline.errors import UserError
from pipeline.evaluation import Subject, records, slices
from pipeline.model.gpt import Shown
from pipeline.objectives import padded
from pipeline.objectives.classify import encode


class Settings(Section):
    split: Literal["validation", "test"]
    batch_size: Positive
    heads: Annotated[dict[Count, Annotated[list[Count], Field(min_length=1)]], Field(min_length=1)]
    """Block number from 0 -> the heads of it that are looked at."""
    towards: Literal["words", "previous", "first"]
    words: list[str]
    """With `words`: what to look for; empty otherwise."""


@torch.no_grad()
def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """attention_mass: the mean share of a head's attention that lies on the target, over tokens that could look there;
    attention_texts: how many texts have any; details: the same by head.

    Raises:
        UserError: no text holds any of the words.
    """
    tokenizer, model = subject.tokenizer, subject.model
    limit = subject.task.get("max_tokens", model.room())
    texts = [encode(tokenizer, row["text"], limit) for row in records(subject, "labelled", settings.split)]
    spelled = spellings(tokenizer.encode, settings.words)
    sums_H, tokens, holding = torch.zeros(sum(map(len, settings.heads.values())), dtype=torch.float64), 0.0, 0
    for part in slices(len(texts), settings.batch_size):
        inputs_BT = padded(texts[part], tokenizer.pad).to(model.embed.weight.device)
        with model.shown(Shown(attentions=settings.heads)) as seen:
            model.hidden(inputs_BT)
        wanted_BTT = targets(inputs_BT, settings.towards, spelled)
        mass_BHT, counts_BT = mass(wanted_BTT, inputs_BT != tokenizer.pad, seen, settings.heads)
        sums_H += (mass_BHT * counts_BT[:, None]).double().sum((0, 2)).cpu()
        tokens += float(counts_BT.sum())
        holding += int(counts_BT.any(1).sum())
    if not tokens:
        raise UserError(f"evaluations.{subject.name}.measures.attention.words: no text holds any of {settings.words}")
    names = [f"block {layer}, head {head}" for layer, heads in settings.heads.items() for head in heads]
    by_head = {name: float(value / tokens) for name, value in zip(names, sums_H, strict=True)}
    return {"attention_mass": float(sums_H.mean() / tokens), "attention_texts": float(holding)}, {"by_head": by_head}
