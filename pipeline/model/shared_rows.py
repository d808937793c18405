"""Texts that begin alike in one row of a batch, so that their common beginning is computed once.

A row holds a trunk, the ids that all of its texts begin with, and behind it a branch per text, the rest of its ids.
Branches do not attend to each other, and the positions of each go on from the trunk (tree attention; Cai et al. 2024,
"Medusa", section 3.1).

Shapes: B rows, T positions, P positions before the rows (prefix, virtual tokens), M scored tokens.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_LEAST_SAVED = 0.15  # share of a group's ids that a trunk saves, below which its texts are rows of their own
_LONGEST_ROW = 768  # ids of a trunk with its branches; attention takes the square


class Text(NamedTuple):
    """The ids of context and continuation, cut on the left to the model's positions."""

    ids: list[int]
    first: int
    """Index of the first id of the continuation, 1 or more."""

    @property
    def scored(self) -> int:
        """Tokens of the continuation."""
        return len(self.ids) - self.first


class Row(NamedTuple):
    """Texts that are computed together."""

    members: list[int]
    """Indices of the texts."""
    trunk: int
    """Number of first input ids, the prefix included, that all of them share."""
    length: int
    """Input ids in all, the prefix left out."""


def shared_ids(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of first ids that two texts share."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def rows_of(texts: Sequence[Text], shared: int, joins: bool) -> list[Row]:
    """Texts that begin alike, in rows; the last id of a text is no input, as nothing is predicted after it."""
    order = sorted(range(len(texts)), key=lambda i: texts[i].ids)
    rows: list[Row] = []
    for i in order:
        length = len(texts[i].ids) - 1 - shared
        alone = Row([i], len(texts[i].ids) - 1, length)
        joined = _joined(texts, rows[-1], i, length, shared) if rows and joins else None
        if joined is None:
            rows.append(alone)
        else:
            rows[-1] = joined
    return rows


def _joined(texts: Sequence[Text], row: Row, new: int, length: int, shared: int) -> Row | None:
    """The row with one more text; None where a trunk saves too little."""
    last = texts[row.members[-1]]
    # Sorted texts: the trunk of all is the shortest beginning that neighbours share.
    trunk = min(row.trunk, shared_ids(last.ids[:-1], texts[new].ids[:-1]))
    n = len(row.members)
    alone = sum(len(texts[i].ids) - 1 - shared for i in row.members) + length
    saved = n * (trunk - shared)
    if saved < _LEAST_SAVED * alone or saved < (n - 1) * (row.trunk - shared) or alone - saved > _LONGEST_ROW:
        return None
    return Row([*row.members, new], trunk, alone - saved)


def batches(rows: Sequence[Row], batch_size: int) -> Iterator[list[Row]]:
    """Rows of like length, `batch_size` texts at a time; rows of one text apart, which need no mask."""
    ordered = sorted(rows, key=lambda row: (len(row.members) > 1, row.length))
    batch: list[Row] = []
    for row, after in pairwise([*ordered, None]):
        assert row is not None
        batch.append(row)
        full = sum(len(one.members) for one in batch) >= batch_size
        if after is None or full or (len(after.members) > 1) != (len(row.members) > 1):
            yield batch
            batch = []


class Packed(NamedTuple):
    """A batch as tensors on the CPU; M scored tokens."""

    ids_BT: Tensor
    positions_BT: Tensor
    """Counted from the prefix's end."""
    branches_BT: Tensor
    """0 in the trunk, the branch's number behind it, -1 in padding."""
    wanted_BT: Tensor
    """Positions whose logits score a token."""
    slots_M: Tensor
    """Row times T plus position whose logits score the token."""
    targets_M: Tensor
    tokens_M: np.ndarray
    """Index of the token among those of all texts."""
    has_branches: bool


def packed_batch(texts: Sequence[Text], ends: np.ndarray, batch: Sequence[Row], shared: int) -> Packed:
    """The tensors of a batch.

    Args:
        texts: all texts.
        ends: [texts], the number of scored tokens up to and with each text's own.
        batch: rows.
        shared: first ids of every text that are in the prefix, and no input.
    """
    width = max(row.length for row in batch)
    ids, positions = (np.zeros((len(batch), width), dtype=np.int64) for _ in range(2))
    branches = np.full((len(batch), width), -1, dtype=np.int64)
    slots, targets, tokens = [], [], []
    for b, row in enumerate(batch):
        trunk = row.trunk - shared
        ids[b, :trunk] = texts[row.members[0]].ids[shared : row.trunk]
        positions[b, :trunk], branches[b, :trunk] = np.arange(trunk), 0
        end = trunk
        for branch, member in enumerate(row.members, start=1):
            text = texts[member]
            rest = text.ids[row.trunk : -1]
            here = slice(end, end + len(rest))
            ids[b, here], branches[b, here] = rest, branch
            positions[b, here] = np.arange(trunk, trunk + len(rest))
            before = np.arange(text.first - 1, len(text.ids) - 1)  # the input ids after which tokens are predicted
            slots.append(b * width + np.where(before < row.trunk, before - shared, before - row.trunk + end))
            targets.append(text.ids[text.first :])
            tokens.append(np.arange(ends[member] - text.scored, ends[member]))
            end += len(rest)
    slots_M = torch.from_numpy(np.concatenate(slots))
    wanted = torch.zeros(len(batch) * width, dtype=torch.bool)
    wanted[slots_M] = True
    return Packed(
        torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(branches), wanted.view(len(batch), width),
        slots_M, torch.from_numpy(np.concatenate(targets)), np.concatenate(tokens),
        any(len(row.members) > 1 for row in batch),
    )  # fmt: skip


def mask_of(packed: Packed, past: int, window: int | None) -> Tensor:
    """[B, 1, T, P + T], true where a token may attend: the prefix, the trunk before it, and its own branch."""
    at_BT, branches_BT = packed.positions_BT + past, packed.branches_BT
    of_row = (branches_BT[:, None] == 0) | (branches_BT[:, None] == branches_BT[:, :, None])
    distance = at_BT[:, :, None] - at_BT[:, None]
    mask = of_row & (distance >= 0)
    before = torch.ones(*at_BT.shape, past, dtype=torch.bool)
    if window is not None:
        mask &= distance < window
        before = at_BT[:, :, None] - torch.arange(past) < window
    return torch.cat((before, mask), dim=2)[:, None]
