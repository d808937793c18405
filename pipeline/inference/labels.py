"""Class probabilities of a classifier, by a classification head (classify) or by label words (cloze).

Evaluation, serving and chat all use them from here, so a text gets the same label in each.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch

from pipeline.config.recipe import Compute
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.objectives import classify, cloze, padded
from pipeline.tokenizer import Tokenizer


class Classifier(Protocol):
    """A model with its tokenizer, task and compute settings: a `Subject` of an evaluation, for example."""

    @property
    def model(self) -> GPT:
        """The network."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Its vocabulary."""

    @property
    def task(self) -> dict[str, Any]:
        """Labels and limits, from tohum.json."""

    @property
    def compute(self) -> Compute:
        """Gives the precision."""


def labels_of(task: Mapping[str, Any]) -> list[str]:
    """The labels in the order of the probabilities; empty for a model without labels."""
    return list(task.get("labels", []))


def answers_with_label(task: Mapping[str, Any]) -> bool:
    """Whether the model answers with a label; a merged model, which may have labels too, answers as its first does."""
    return task.get("objective") in ("classify", "cloze")


@torch.no_grad()
def probabilities(  # noqa: PLR0913 - a model with its tokenizer and task, the texts, and how to compute
    model: GPT,
    tokenizer: Tokenizer,
    task: Mapping[str, Any],
    texts: Sequence[str],
    batch_size: int,
    precision: AbstractContextManager[Any] | None = None,
) -> torch.Tensor:
    """probabilities_NC of the labels, float32 on the CPU; texts of like length share a batch."""
    uses_words = model.score is None and "verbalizers" in task
    if uses_words:
        words = cloze.words(tokenizer, task)
        rows = [cloze.read(tokenizer, task, text) for text in texts]
    else:
        rows = [classify.encode(tokenizer, text, task["max_tokens"]) for text in texts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    probabilities_NC = torch.zeros(len(rows), len(labels_of(task)))
    device = next(model.parameters()).device
    for first in range(0, len(rows), batch_size):
        part = order[first : first + batch_size]
        inputs_BT = padded([rows[i] for i in part], tokenizer.pad).to(device)
        lengths_B = torch.tensor([len(rows[i]) for i in part], device=device)
        with precision or nullcontext():
            if uses_words:
                scores_BC = cloze.class_scores(model, words, inputs_BT, lengths_B)
            else:
                mask_BT = torch.arange(inputs_BT.shape[1], device=device)[None] < lengths_B[:, None]
                scores_BC = model.classify(inputs_BT, mask_BT)
        probabilities_NC[part] = scores_BC.float().softmax(-1).cpu()
    return probabilities_NC


def predict(subject: Classifier, texts: Sequence[str], batch_size: int) -> torch.Tensor:
    """probabilities_NC of the labels in the precision of the params, float32 on the CPU; a measure may call it."""
    return probabilities(
        subject.model, subject.tokenizer, subject.task, texts, batch_size, precision=autocast(subject.compute)
    )
