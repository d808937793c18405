"""Passes of a model over sampled answers: the prompt that several of them follow is computed once.

Of 8 answers to a prompt as long as they are, this saves 44 % of the tokens (pipeline/model/shared_rows.py); logits and
gradients are those of rows of their own up to rounding. On a CPU, for networks of ours; elsewhere answers are rows.

Shapes: B answers, T positions, N answer tokens in the order of the rows, D width.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.contracts import Batch, Predictions
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.model.shared_rows import Packed, Text, batches, mask_of, packed_batch, rows_of


class _Texts(NamedTuple):
    """Prompts with their answers, and the number of answer tokens up to the end of each."""

    texts: list[Text]
    ends: np.ndarray


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
    mask_BT = answer_mask(batch)
    if not _can_share(model, batch):
        return model.hidden(batch["inputs"], wanted_BT=mask_BT)
    texts, ends = _texts_of(batch, mask_BT)
    rows = rows_of(texts, 0, joins=True)
    if len(rows) == len(texts):
        return model.hidden(batch["inputs"], wanted_BT=mask_BT)
    hidden, order = [], []
    for part in batches(rows, len(texts)):
        packed = packed_batch(texts, ends, part, 0)
        hidden.append(_hidden(model, packed))
        order.append(packed.tokens_M)
    hidden_ND = torch.cat(hidden) if len(hidden) > 1 else hidden[0]
    return hidden_ND.index_select(0, torch.from_numpy(np.argsort(np.concatenate(order))))


def _can_share(model: GPT, batch: Batch) -> bool:
    """Whether rows with masks of their own are computed faster: not by recorded or compiled kernels of fixed shapes."""
    plain = not isinstance(model, LibraryModel) and model.virtual is None and not model.static_shapes
    return plain and batch["inputs"].device.type == "cpu" and len(batch["inputs"]) > 1


def _texts_of(batch: Batch, mask_BT: Tensor) -> _Texts:
    """The rows of a batch without their padding."""
    firsts_B = (mask_BT.int().argmax(1) + 1).tolist()
    counts_B = mask_BT.sum(1)
    rows = zip(batch["inputs"].tolist(), batch["targets"].tolist(), firsts_B, counts_B.tolist(), strict=True)
    texts = []
    for inputs, targets, first, count in rows:
        last = first + count - 1  # of the text, which is no input
        texts.append(Text([*inputs[:last], *targets[last - 1 : last]], first))
    return _Texts(texts, counts_B.cumsum(0).numpy())


def _hidden(model: GPT, packed: Packed) -> Tensor:
    """hidden_MD of a packed batch in the order of its tokens."""
    mask = None
    if packed.has_branches:
        window = model.config.window_within(int(packed.positions_BT.max()) + 1)
        mask = mask_of(packed, 0, window)
    hidden_WD = model.hidden(
        packed.ids_BT, mask=mask, positions_BT=packed.positions_BT if packed.has_branches else None,
        wanted_BT=packed.wanted_BT,
    )  # fmt: skip
    places_M = (packed.wanted_BT.flatten().cumsum(0) - 1)[packed.slots_M]
    return hidden_WD.index_select(0, places_M)
