"""Class probabilities of a classifier, by a classification head (classify) or by label words (cloze).

Evaluation, serving and chat all use them from here, so a text gets the same label in each.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from pipeline.model.gpt import GPT
from pipeline.tasks import Labelling, Request, padded


@torch.no_grad()
def probabilities(
    model: GPT,
    task: Labelling,
    requests: Sequence[Request],
    batch_size: int,
    precision: AbstractContextManager[Any] | None = None,
) -> torch.Tensor:
    """probabilities_NC of the task's labels, float32 on the CPU; requests of like length share a batch."""
    rows = [task.prompt(request) for request in requests]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    probabilities_NC = torch.zeros(len(rows), len(task.labels))
    device = next(model.parameters()).device
    for first in range(0, len(rows), batch_size):
        part = order[first : first + batch_size]
        inputs_BT = padded([rows[i] for i in part], task.tokenizer.pad).to(device)
        lengths_B = torch.tensor([len(rows[i]) for i in part], device=device)
        with precision or nullcontext():
            scores_BC = task.class_scores(model, inputs_BT, lengths_B)
        probabilities_NC[part] = scores_BC.float().softmax(-1).cpu()
    return probabilities_NC
