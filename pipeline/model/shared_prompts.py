"""Hidden states of several answers to the same prompt, whose prompt is computed once.

Answers to one prompt are a row: their prompt, then a branch for each answer. Branches do not attend to each other, and
the positions of each go on from the prompt (tree attention; Cai et al. 2024, "Medusa", section 3.1). Gradients of the
prompt are those of all its answers. Up to rounding the result is that of a row for each answer.

An update of 64 rollouts, 8 for each prompt of 30 tokens, takes 0.6 of the time on a CPU; of 8 pairs 0.75
(`python -m tests.bench.judgement`).

Shapes: B answers, N wanted positions of all, T positions of a row of the batch, R rows of prompts with branches, S
positions of those.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.model.varlen import permuted

_LEAST_SAVED = 0.1  # share of the ids, below which every answer is a row of its own


class _Answer(NamedTuple):
    """A row of the batch up to its last wanted position."""

    number: int
    """In the batch."""
    ids: list[int]
    wanted: list[bool]


class _Row(NamedTuple):
    """A prompt and the answers that are computed with it."""

    prompt: int
    """Number of first ids that all of them share."""
    answers: list[_Answer]
    length: int
    """Ids of the prompt and of all branches."""


def hidden(model: GPT, inputs_BT: Tensor, wanted_BT: Tensor, prompts_B: Tensor | None = None) -> Tensor:
    """Hidden states [N, D] at the wanted positions, in their order, as `GPT.hidden` with `wanted_BT` gives them.

    Args:
        model: a GPT; with virtual tokens, compiled blocks, on a GPU or computed
            by transformers every answer is a row of its own.
        inputs_BT: ids of prompt and answer, padded on the right.
        wanted_BT: boolean.
        prompts_B: number of first ids that answers may share, before the first wanted position; None: all of those.
    """
    rows = _rows(inputs_BT, wanted_BT, prompts_B, model.config.d_model) if _suits(model, inputs_BT) else None
    if rows is None:
        return model.hidden(inputs_BT, wanted_BT=wanted_BT)
    packed = _packed(rows, model.config.sliding_window)
    x_ND = model.hidden(packed.ids_RS, mask=packed.mask, positions_BT=packed.positions_RS, wanted_BT=packed.wanted_RS)
    return x_ND if packed.order_2N is None else permuted(x_ND, *packed.order_2N.unbind(0))


def _suits(model: GPT, inputs_BT: Tensor) -> bool:
    plain = model.virtual is None and model.capture is None and not model.static_shapes
    return plain and inputs_BT.device.type == "cpu" and not isinstance(model, LibraryModel)


def _longest(prompt: int, d_model: int) -> int:
    """Length of a row from which on a further row with the prompt takes less time.

    Products take a time in proportion to S D^2, attention to S^2 D; on a CPU both are as large at S = 2 D, all in all
    S (2 D + S) for a row. Per answer of b tokens, S = P + k b, that is least where k b = sqrt(P (2 D + P)).
    """
    return prompt + math.isqrt(prompt * (2 * d_model + prompt))


def _rows(inputs_BT: Tensor, wanted_BT: Tensor, prompts_B: Tensor | None, d_model: int) -> list[_Row] | None:
    """Prompts with their answers; None where too little is saved."""
    answers_of: dict[tuple[int, ...], list[_Answer]] = {}
    starts = None if prompts_B is None else prompts_B.tolist()
    for number, (ids, wanted) in enumerate(zip(inputs_BT.tolist(), wanted_BT.tolist(), strict=True)):
        if True in wanted:
            end = len(wanted) - wanted[::-1].index(True)
            start = wanted.index(True) if starts is None else starts[number]
            answers_of.setdefault(tuple(ids[:start]), []).append(_Answer(number, ids[:end], wanted[:end]))
    rows: list[_Row] = []
    for prompt, answers in answers_of.items():
        row = _Row(len(prompt), [], len(prompt))
        for answer in answers:
            branch = len(answer.ids) - len(prompt)
            if row.answers and row.length + branch > _longest(len(prompt), d_model):
                rows.append(row)
                row = _Row(len(prompt), [], len(prompt))
            row = _Row(row.prompt, [*row.answers, answer], row.length + branch)
        rows.append(row)
    before = sum(len(answer.ids) for row in rows for answer in row.answers)
    saved = before - sum(row.length for row in rows)
    return rows if before and saved >= _LEAST_SAVED * before else None


class _Packed(NamedTuple):
    ids_RS: Tensor
    positions_RS: Tensor
    wanted_RS: Tensor
    mask: Tensor
    """[R, 1, S, S], true where a token may attend: the prompt before it, and its own branch."""
    order_2N: Tensor | None
    """Place among the rows' wanted positions of each position that the caller wants, and the inverse permutation; None:
    the same order."""


def _packed(rows: list[_Row], window: int | None) -> _Packed:
    width = max(row.length for row in rows)
    ids, positions, branches, wanted = [], [], [], []
    for P, answers, length in rows:
        padding = width - length
        row_ids, row_positions, row_branches = answers[0].ids[:P], list(range(P)), [0] * P
        row_wanted = [False] * P
        for branch, answer in enumerate(answers, start=1):
            row_ids += answer.ids[P:]
            row_positions += range(P, len(answer.ids))
            row_branches += [branch] * (len(answer.ids) - P)
            row_wanted += answer.wanted[P:]
        ids.append(row_ids + [0] * padding)
        positions.append(row_positions + [0] * padding)
        branches.append(row_branches + [-1] * padding)
        wanted.append(row_wanted + [False] * padding)
    ids_RS, positions_RS, branches_RS = torch.tensor([ids, positions, branches]).unbind(0)
    of_row = (branches_RS[:, None] == 0) | (branches_RS[:, None] == branches_RS[:, :, None])
    distance_RSS = positions_RS[:, :, None] - positions_RS[:, None]
    mask = of_row & (distance_RSS >= 0)
    if window is not None:
        mask &= distance_RSS < window
    return _Packed(ids_RS, positions_RS, torch.tensor(wanted), mask[:, None], _order(rows))


def _order(rows: list[_Row]) -> Tensor | None:
    """Where the wanted positions of the answers, in the batch's order, are among those of the rows, and the inverse."""
    answers = [answer for row in rows for answer in row.answers]
    if all(a.number < b.number for a, b in pairwise(answers)):
        return None
    first, places = 0, {}
    for answer in answers:
        places[answer.number] = range(first, first + sum(answer.wanted))
        first += len(places[answer.number])
    order = [place for number in sorted(places) for place in places[number]]
    inverse = [0] * len(order)
    for wanted, place in enumerate(order):
        inverse[place] = wanted
    return torch.tensor([order, inverse])
