"""Which label: how a model that learned labels is asked for them, whether by a head (classify) or by words (cloze).

Scoring, serving and chatting ask here, so that all of them hear the same answer.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from pipeline.model.gpt import GPT
from pipeline.objectives import classify, cloze, padded
from pipeline.tokenizer import Tokenizer


def labels_of(task: Mapping[str, Any]) -> list[str]:
    """The labels in the order of the probabilities; empty for a model that learned none."""
    return list(task.get("labels", []))


def answers_with_label(task: Mapping[str, Any]) -> bool:
    """Whether a label is what the model says when asked; a merge has labels and says what its first model would."""
    return task.get("objective") in ("classify", "cloze")


@torch.no_grad()
def probabilities(
    model: GPT,
    tokenizer: Tokenizer,
    task: Mapping[str, Any],
    texts: Sequence[str],
    batch_size: int,
    precision: AbstractContextManager[Any] | None = None,
) -> torch.Tensor:
    """probabilities_NC of the labels, float32 on the CPU; texts of like length share a batch."""
    by_words = model.score is None and "verbalizers" in task
    if by_words:
        words = cloze.words(tokenizer, task)
        rows = [cloze.read(tokenizer, task, text) for text in texts]
    else:
        rows = [classify.encode(tokenizer, text, task["max_tokens"]) for text in texts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out = torch.zeros(len(rows), len(labels_of(task)))
    device = next(model.parameters()).device
    for first in range(0, len(rows), batch_size):
        part = order[first : first + batch_size]
        inputs_BT = padded([rows[i] for i in part], tokenizer.pad).to(device)
        lengths_B = torch.tensor([len(rows[i]) for i in part], device=device)
        with precision or nullcontext():
            if by_words:
                scores_BC = cloze.class_scores(model, words, inputs_BT, lengths_B)
            else:
                mask_BT = torch.arange(inputs_BT.shape[1], device=device)[None] < lengths_B[:, None]
                scores_BC = model.classify(inputs_BT, mask_BT)
        out[part] = scores_BC.float().softmax(-1).cpu()
    return out
