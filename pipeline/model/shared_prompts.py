"""Hidden states of several answers to the same prompt, whose prompt is computed once.

Answers to one prompt are a row: their prompt, then a branch for each answer. Branches do not attend to each other, and
the positions of each go on from the prompt (tree attention; Cai et al. 2024, "Medusa", section 3.1). Gradients of the
prompt are those of all its answers. Up to rounding the result is that of a row for each answer.

An update of 64 rollouts, 8 for each prompt of 30 tokens, takes 0.6 of the time on a CPU; of 8 pairs 0.75
(`python -m tests.bench.judgement`).

Shapes: B answers, N wanted positions of all, T positions of a row of the batch, R rows of prompts with branches, S
positions of those.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.model.varlen import permuted

_LEAST_SAVED = 0.1  # share of the ids, below which every answer is a row of its own
_LONGEST_ROW = 384  # ids of a prompt with its branches, unless one answer is longer; attention takes the square


class _Row(NamedTuple):
    """A prompt and the answers that are computed with it."""

    prompt: list[int]
    branches: list[int]
    """Numbers of the answers in the batch."""
    length: int
    """Ids of the prompt and of all branches."""


def hidden(model: GPT, inputs_BT: Tensor, wanted_BT: Tensor, prompts_B: Tensor | None = None) -> Tensor:
    """Hidden states [N, D] at the wanted positions, in their order, as `GPT.hidden` with `wanted_BT` gives them.

    Args:
        model: a GPT; with virtual tokens, a sliding window shorter than the rows, compiled blocks, on a GPU or computed
            by transformers every answer is a row of its own.
        inputs_BT: ids of prompt and answer, padded on the right.
        wanted_BT: boolean.
        prompts_B: number of first ids that answers may share, before the first wanted position; None: all of those.
    """
    rows = _rows(inputs_BT, wanted_BT, prompts_B) if _suits(model, inputs_BT) else None
    if rows is None:
        return model.hidden(inputs_BT, wanted_BT=wanted_BT)
    packed = _packed(rows, inputs_BT, wanted_BT)
    x_ND = model.hidden(packed.ids_RS, mask=packed.mask, positions_BT=packed.positions_RS, wanted_BT=packed.wanted_RS)
    return x_ND if packed.order_N is None else permuted(x_ND, packed.order_N)


def _suits(model: GPT, inputs_BT: Tensor) -> bool:
    plain = model.virtual is None and model.capture is None and not model.static_shapes
    narrow = model.config.window_within(inputs_BT.shape[1]) is not None
    return plain and not narrow and inputs_BT.device.type == "cpu" and not isinstance(model, LibraryModel)


def _rows(inputs_BT: Tensor, wanted_BT: Tensor, prompts_B: Tensor | None) -> list[_Row] | None:
    """Prompts with their answers; None where too little is saved."""
    if len(inputs_BT) < 2:
        return None
    starts = (wanted_BT.int().argmax(1) if prompts_B is None else prompts_B).tolist()
    ends = _ends(wanted_BT)
    answers_of: dict[tuple[int, ...], list[int]] = {}
    for number, (ids, start, end) in enumerate(zip(inputs_BT.tolist(), starts, ends, strict=True)):
        if end:
            answers_of.setdefault(tuple(ids[:start]), []).append(number)
    rows: list[_Row] = []
    for prompt, answers in answers_of.items():
        row = _Row(list(prompt), [], len(prompt))
        for number in answers:
            branch = ends[number] - len(prompt)
            if row.branches and row.length + branch > _LONGEST_ROW:
                rows.append(row)
                row = _Row(list(prompt), [], len(prompt))
            row = _Row(row.prompt, [*row.branches, number], row.length + branch)
        rows.append(row)
    before, now = sum(ends), sum(row.length for row in rows)
    return rows if before and before - now >= _LEAST_SAVED * before else None


def _ends(wanted_BT: Tensor) -> list[int]:
    """Number of ids up to the last wanted position of every answer; 0 where none is wanted."""
    T = wanted_BT.shape[1]
    ends: list[int] = ((T - wanted_BT.flip(1).int().argmax(1)) * wanted_BT.any(1)).tolist()
    return ends


class _Packed(NamedTuple):
    ids_RS: Tensor
    positions_RS: Tensor
    wanted_RS: Tensor
    mask: Tensor
    """[R, 1, S, S], true where a token may attend: the prompt before it, and its own branch."""
    order_N: Tensor | None
    """Place among the rows' wanted positions of each position that the caller wants; None: the same order."""


def _packed(rows: list[_Row], inputs_BT: Tensor, wanted_BT: Tensor) -> _Packed:
    width = max(row.length for row in rows)
    ends, counts = _ends(wanted_BT), wanted_BT.sum(1)
    ids_RS, positions_RS = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
    branches_RS = torch.full((len(rows), width), -1)
    wanted_RS = torch.zeros(len(rows), width, dtype=torch.bool)
    places_T = torch.arange(max(width, inputs_BT.shape[1]))
    for r, row in enumerate(rows):
        P = len(row.prompt)
        ids_RS[r, :P] = inputs_BT[row.branches[0], :P]
        positions_RS[r, :P], branches_RS[r, :P] = places_T[:P], 0
        first = P
        for branch, number in enumerate(row.branches, start=1):
            end = ends[number]
            here = slice(first, first + end - P)
            ids_RS[r, here], wanted_RS[r, here] = inputs_BT[number, P:end], wanted_BT[number, P:end]
            positions_RS[r, here], branches_RS[r, here] = places_T[P:end], branch
            first += end - P
    of_row = (branches_RS[:, None] == 0) | (branches_RS[:, None] == branches_RS[:, :, None])
    mask = of_row & (positions_RS[:, None] <= positions_RS[:, :, None])
    return _Packed(ids_RS, positions_RS, wanted_RS, mask[:, None], _order(rows, counts))


def _order(rows: Iterable[_Row], counts_B: Tensor) -> Tensor | None:
    """Where the wanted positions of the answers, in the batch's order, are among those of the rows."""
    numbers = [number for row in rows for number in row.branches]
    if numbers == sorted(numbers):
        return None
    numbers_A = torch.tensor(numbers)
    firsts_B = torch.zeros_like(counts_B).index_copy(0, numbers_A, _firsts(counts_B[numbers_A]))
    within_N = torch.arange(int(counts_B.sum())) - _firsts(counts_B).repeat_interleave(counts_B)
    return firsts_B.repeat_interleave(counts_B) + within_N


def _firsts(counts_B: Tensor) -> Tensor:
    """Number of values before those of each, where they lie one after the other."""
    return counts_B.cumsum(0) - counts_B
