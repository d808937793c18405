"""Passes of a model over sampled answers: the prompt that several of them follow is computed once.

Logits and gradients are those of rows of their own up to rounding (pipeline/model/shared_prompts.py).

Shapes: B answers, T positions, N answer tokens in the order of the rows, D width.
"""

from torch import Tensor

from pipeline.contracts import Batch, Predictions
from pipeline.model import shared_prompts
from pipeline.model.gpt import GPT


def answer_mask(batch: Batch) -> Tensor:
    """mask_BT: true where a token of an answer is predicted; other targets are negative."""
    return batch["targets"] >= 0


def predictions(model: GPT, batch: Batch) -> Predictions:
    """As of task `prompts`: next-token scores at every answer token."""
    mask_BT = answer_mask(batch)
    scores_NC = model.logits(hidden_states(model, batch))
    return Predictions(scores_NC, batch["targets"][mask_BT], mask_BT.nonzero()[:, 0], len(mask_BT))


def hidden_states(model: GPT, batch: Batch) -> Tensor:
    """hidden_ND at the positions that predict the tokens of answers."""
    return shared_prompts.hidden(model, batch["inputs"], answer_mask(batch))
