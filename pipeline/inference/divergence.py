"""KL divergence of a model to a reference over answers that it sampled, in nats.

The estimate of an answer is the sum, over its steps, of the exact KL of the next-token distributions over the whole
vocabulary (Rao-Blackwellised: Amini et al. 2025, equation 8): the mean over answers has the expectation of the mean of
the log-ratios ln p(answer) - ln q(answer), and less variance, and no answer's is negative. The steps end with the
answer: at its stop id, whose step counts, or after its last token.

Shapes: B answers of a batch, N steps of them, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.inference.engine import Engine, RowSettings
from pipeline.model.device import autocast, lowered
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.tasks import IGNORED, padded

_ROWS = 256  # answers that are decoded at once
_TOKENS_AT_ONCE = 4096  # of a batch, padding included
_STEPS_AT_ONCE = 512  # whose distributions are in memory at once


class Drawn(NamedTuple):
    """An answer that a model sampled."""

    row: int
    """Number of its prompt."""
    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    """As drawn, with the stop id where it ended by one."""
    ended: bool
    """Whether by a stop id; else by its last token."""

    @property
    def said(self) -> tuple[int, ...]:
        """The ids without the stop id."""
        return self.ids[:-1] if self.ended else self.ids


class Divergences(NamedTuple):
    """Of each answer, in nats; float64 arrays [answers]."""

    kl_nats: np.ndarray
    """Sum over its steps of the exact KL of the next token."""
    log_ratio_nats: np.ndarray
    """ln p(answer) - ln q(answer)."""


def draw(model: GPT, asks: Sequence[tuple[Sequence[int], RowSettings]], samples: int, compute: Compute) -> list[Drawn]:
    """So many answers to every prompt, in the order of the prompts.

    Args:
        model: on the CPU, or on any device where transformers computes it.
        asks: prompts with their settings; an answer also ends where the context does.
        samples: of each prompt; they do not depend on the other prompts.
        compute: precision of the params.

    Raises:
        UserError: a prompt that leaves no room for an answer.
    """
    ids: dict[int, list[int]] = {}
    ended: dict[int, bool] = {}
    owners: list[int] = []
    with lowered(model, compute):
        engine = Engine(model.eval(), max_rows=_ROWS, logprobs=False)
        for row, (prompt, settings) in enumerate(asks):
            numbers = engine.add(prompt, settings, samples=samples)
            owners += [row] * len(numbers)
            ids |= {number: [] for number in numbers}
        while engine.busy:
            for token in engine.step():
                ids[token.row].append(token.id)
                ended[token.row] = token.finished == "stop"
    return [
        Drawn(owner, tuple(asks[owner][0]), tuple(ids[number]), ended[number])
        for owner, number in zip(owners, sorted(ids), strict=True)
    ]


@torch.no_grad()
def divergences(
    model: GPT, reference: GPT, answers: Sequence[Drawn], compute: Compute, temperature: float = 1.0
) -> Divergences:
    """The KL of the model to the reference on each answer.

    Args:
        model: the answers were sampled from it, at this temperature, without top-k and top-p.
        reference: of the same vocabulary.
        answers: in any order.
        compute: precision of the params; sums are float64.
        temperature: divides the logits of both.

    Raises:
        UserError: another vocabulary, or a KL that is not finite.
    """
    if model.config.vocab_size != reference.config.vocab_size:
        raise UserError(
            f"the reference has a vocabulary of {reference.config.vocab_size} tokens, the model of "
            f"{model.config.vocab_size}; a KL needs one vocabulary: name a model that this one was trained from"
        )
    exact, ratio = np.zeros(len(answers)), np.zeros(len(answers))
    for batch in _batches(answers, isinstance(model, LibraryModel) or isinstance(reference, LibraryModel)):
        chosen = [answers[i] for i in batch]
        inputs_BT = padded([[*one.prompt, *one.ids][:-1] for one in chosen], 0)
        targets_BT = padded([[*[IGNORED] * (len(one.prompt) - 1), *one.ids] for one in chosen], IGNORED)
        rows_N = (targets_BT != IGNORED).nonzero()[:, 0]
        with autocast(compute):
            kl_N, ratio_N = _steps((model, reference), inputs_BT, targets_BT, temperature)
        np.add.at(exact, np.array(batch)[rows_N.numpy()], kl_N)
        np.add.at(ratio, np.array(batch)[rows_N.numpy()], ratio_N)
    if not (np.isfinite(exact).all() and np.isfinite(ratio).all()):
        raise UserError(
            "the KL to the reference is not finite; one of the models is broken, look at its training curve"
        )
    return Divergences(exact, ratio)


def _batches(answers: Sequence[Drawn], alone: bool) -> list[list[int]]:
    """Indices of answers by length, so many as _TOKENS_AT_ONCE; `alone`: only answers of one length together."""
    lengths = [len(one.prompt) + len(one.ids) for one in answers]
    batches: list[list[int]] = []
    for i in sorted(range(len(answers)), key=lambda i: lengths[i]):
        fits = bool(batches) and (len(batches[-1]) + 1) * lengths[i] <= _TOKENS_AT_ONCE
        if fits and not (alone and lengths[batches[-1][0]] != lengths[i]):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _steps(
    models: tuple[GPT, GPT], inputs_BT: Tensor, targets_BT: Tensor, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """(KL of the next token, log-ratio of the drawn id) at every target that is not IGNORED, float64 [N]."""
    wanted_BT = targets_BT != IGNORED
    hidden_ND, theirs_ND = (
        one.hidden(inputs_BT.to(one.embed.weight.device), wanted_BT=wanted_BT.to(one.embed.weight.device))
        for one in models
    )
    ids_N = targets_BT[wanted_BT].to(hidden_ND.device)
    parts = []
    for first in range(0, len(hidden_ND), _STEPS_AT_ONCE):
        at = slice(first, first + _STEPS_AT_ONCE)
        p_NV, q_NV = (
            (one.logits(x_ND[at]).double() / temperature).log_softmax(-1)
            for one, x_ND in zip(models, (hidden_ND, theirs_ND), strict=True)
        )
        difference_NV = p_NV - q_NV
        kl_N = (p_NV.exp() * difference_NV).sum(-1).clamp(min=0)
        parts.append(torch.stack([kl_N, difference_NV.gather(1, ids_N[at, None])[:, 0]]))
    both_2N = torch.cat(parts, dim=1).cpu().numpy()
    return both_2N[0], both_2N[1]
