"""Scores of tasks whose answer is read at the end of a text: by a head (classify, multi_label, regress) or by label
words (cloze).

Evaluation, serving and chat all use them from here, so a text gets the same answer in each.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from pipeline.model.gpt import GPT
from pipeline.tasks import Labelling, Request, Scoring, padded


@torch.no_grad()
def scores(
    model: GPT,
    task: Scoring,
    requests: Sequence[Request],
    batch_size: int,
    precision: AbstractContextManager[Any] | None = None,
) -> Tensor:
    """scores_NC in the order of the task's outputs, before softmax or sigmoid, float32 on the CPU.

    Requests of like length share a batch.
    """
    rows = [task.prompt(request) for request in requests]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    scores_NC = torch.zeros(len(rows), len(task.spec.outputs))
    device = next(model.parameters()).device
    for first in range(0, len(rows), batch_size):
        part = order[first : first + batch_size]
        inputs_BT = padded([rows[i] for i in part], task.tokenizer.pad).to(device)
        lengths_B = torch.tensor([len(rows[i]) for i in part], device=device)
        with precision or nullcontext():
            scores_BC = task.class_scores(model, inputs_BT, lengths_B)
        scores_NC[part] = scores_BC.float().cpu()
    return scores_NC


def probabilities(
    model: GPT,
    task: Labelling,
    requests: Sequence[Request],
    batch_size: int,
    precision: AbstractContextManager[Any] | None = None,
) -> Tensor:
    """probabilities_NC of the task's labels, of which one is right; arguments as of `scores`."""
    return scores(model, task, requests, batch_size, precision).softmax(-1)
