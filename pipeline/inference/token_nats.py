"""Loss of every token of given texts under a model, for attacks on training data that compare single tokens.

Shapes: B texts of a batch, T tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from pipeline.config.recipe import Compute
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.tasks import IGNORED, padded, predicted_tokens


class Text(NamedTuple):
    """A prompt, whose tokens are not scored, and the tokens after it, which are."""

    prompt: Sequence[int]
    """At least one id."""
    scored: Sequence[int]


def cut(text: Text, room: int) -> Text:
    """The text with at most `room` + 1 ids: the end of its prompt, then the beginning of its scored tokens."""
    scored = text.scored[:room]
    return Text(text.prompt[-max(1, room + 1 - len(scored)) :], scored)


@torch.no_grad()
def token_nats(model: GPT, texts: Sequence[Text], batch_size: int, compute: Compute) -> list[npt.NDArray[np.float64]]:
    """The loss in nats of each scored token of each text (`cut` to the context), in the order of `texts`."""
    rows = [cut(text, model.room()) for text in texts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt) + len(rows[i].scored))
    device = next(model.parameters()).device
    nats: list[npt.NDArray[np.float64]] = [np.zeros(0)] * len(rows)
    for first in range(0, len(order), batch_size):
        part = order[first : first + batch_size]
        ids = [[*rows[i].prompt, *rows[i].scored] for i in part]
        masked = [[IGNORED] * (len(rows[i].prompt) - 1) + list(rows[i].scored) for i in part]
        batch = {"inputs": padded([row[:-1] for row in ids], 0), "targets": padded(masked, IGNORED)}
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        with autocast(compute):
            said = predicted_tokens(model, batch)
        losses_N = F.cross_entropy(said.scores_NC.float(), said.targets_N, reduction="none").double().cpu().numpy()
        ends = np.cumsum([len(rows[i].scored) for i in part])
        for i, losses in zip(part, np.split(losses_N, ends[:-1]), strict=True):
            nats[i] = losses
    return nats
