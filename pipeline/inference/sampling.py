"""The next id of a row from its logits: greedy, or drawn by temperature, top-k and top-p.

The order of the filters (temperature, top-k, top-p; nucleus sampling: Holtzman et al. 2020) is that of transformers.

Shapes: B rows, V vocabulary, C candidates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.errors import UserError

_COLDEST = 1e-6  # temperature below which logits over it are no longer finite
_CANDIDATES = 128  # likeliest ids, among which the nucleus of most rows is found without sorting all


class Filter(NamedTuple):
    """Temperature and the filters of one row."""

    temperature: float
    """Divides the logits; 0 takes the likeliest id and draws nothing."""
    top_k: int
    """So many likeliest ids; 0 keeps all."""
    top_p: float
    """The fewest likeliest ids whose probabilities add up to this; 1 keeps all."""

    def check(self, max_tokens: int) -> None:
        """Raises UserError for settings that no answer can have."""
        temperature, top_k, top_p = self
        if max_tokens < 1 or not 0 <= temperature < float("inf") or top_k < 0 or not 0 < top_p <= 1:
            raise UserError(
                f"max_tokens {max_tokens}, temperature {temperature}, top_k {top_k}, top_p {top_p}; expected "
                "max_tokens >= 1, temperature >= 0, top_k >= 0 (0 keeps all), 0 < top_p <= 1"
            )


def pick(logits_BV: Tensor, filters: Sequence[Filter], draws: Sequence[float]) -> list[int]:
    """One id per row, by the row's own filter and its own number in [0, 1); greedy rows ignore theirs.

    A row's id does not depend on the rows beside it.
    """
    groups: dict[Filter, list[int]] = {}
    for row, one in enumerate(filters):
        groups.setdefault(one, []).append(row)
    ids = [0] * len(filters)
    for one, rows in groups.items():
        part_BV = logits_BV if len(groups) == 1 else logits_BV[rows]
        if one.temperature == 0:
            found = part_BV.argmax(dim=-1)
        else:
            found = _drawn(part_BV, one, torch.tensor([draws[row] for row in rows], dtype=torch.float64))
        for row, token in zip(rows, found.tolist(), strict=True):
            ids[row] = token
    return ids


def kept(logits_BV: Tensor, one: Filter) -> Tensor:
    """Logits over the temperature, minus infinity where a filter drops the id; for a temperature above 0."""
    logits_BV = logits_BV.float() / max(one.temperature, _COLDEST)
    if 0 < one.top_k < logits_BV.shape[-1]:
        least_B1 = logits_BV.topk(one.top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    if one.top_p < 1:
        sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
        dropped_BV = torch.zeros_like(logits_BV, dtype=torch.bool).scatter(
            1, order_BV, _beyond(sorted_BV.softmax(-1), one)
        )
        logits_BV = logits_BV.masked_fill(dropped_BV, -torch.inf)
    return logits_BV


def _drawn(logits_BV: Tensor, one: Filter, draws_B: Tensor) -> Tensor:
    """Ids by the inverse of the cumulative distribution, [B]."""
    V = logits_BV.shape[-1]
    if 0 < one.top_k < V or one.top_p == 1:
        return _inverse(kept(logits_BV, one).softmax(-1), draws_B)
    logits_BV = logits_BV.float() / max(one.temperature, _COLDEST)
    sums_B1 = logits_BV.logsumexp(-1, keepdim=True)
    values_BC, ids_BC = logits_BV.topk(min(_CANDIDATES, V), dim=-1)
    share_BC = (values_BC - sums_B1).exp()
    found_B = _inverse(share_BC.masked_fill(_beyond(share_BC, one), 0.0), draws_B)
    ids_B = ids_BC.gather(1, found_B[:, None])[:, 0]
    flat_B = share_BC.sum(-1) < one.top_p  # the candidates do not reach top_p: all ids are sorted
    if bool(flat_B.any()):
        ids_B[flat_B] = _inverse(kept(logits_BV[flat_B], one._replace(temperature=1.0)).softmax(-1), draws_B[flat_B])
    return ids_B


def _beyond(share_BC: Tensor, one: Filter) -> Tensor:
    """Whether top-p drops an id, of shares in descending order: those before it reach top_p; the first never."""
    beyond_BC = share_BC.cumsum(-1) - share_BC >= one.top_p
    beyond_BC[:, 0] = False
    return beyond_BC


def _inverse(share_BV: Tensor, draws_B: Tensor) -> Tensor:
    """Index of the first share whose cumulative sum exceeds the draw, [B]; shares need not add up to 1."""
    sums_BV = share_BV.double().cumsum(-1)
    wanted_B1 = draws_B[:, None] * sums_BV[:, -1:]
    found_B = torch.searchsorted(sums_BV, wanted_B1, right=True)[:, 0]
    if int(found_B.max()) < share_BV.shape[-1]:
        return found_B
    last_B = share_BV.shape[-1] - 1 - (share_BV.flip(-1) > 0).int().argmax(-1)  # a product rounded up to the sum
    return torch.minimum(found_B, last_B)
