"""The oracle: sampled estimators beside exact ones, and planted bugs, each of which a check finds.

A world (`oracle.py`) is so small that expected reward, KL and gradients are exact. `evidence` runs the real path on it:
rollouts, judge, columns, losses, gradients; each check compares a part of the evidence with the exact values.

    check       what must hold
    gradient    the mean gradient of the loss is that of E[score] - weight KL (15 directions, 5 standard errors)
    ratio       before the first update of a block every token's ratio to the policy that answered is 1
    drawn       the log-probabilities of answers are those of the enumeration, also in the block after an update
    score       every rollout has the score of its own answer
    kl          the mean log-ratio to the reference is the exact KL (5 standard errors), also after an update
    advantages  they are those of a plain computation in float64, finite, and 0 in groups without spread
    rows        the losses of micro-batches in another order, padded otherwise, are those of the whole block

    planted bug                                       found by
    log-probabilities off by one                      ratio, gradient
    KL with the other sign                            gradient, kl
    KL counted twice                                  gradient, kl
    KL at each token alone                            gradient
    only the first answer as baseline                 gradient, advantages
    leave-one-out over all answers                    gradient, advantages
    doubled standard deviation                        advantages
    divided by the length                             gradient
    tokens after the end                              ratio, drawn
    tokens of the padding                             ratio, gradient
    dropout in the ratio                              ratio
    temperature left out of the loss                  ratio, gradient
    temperature left out of the sampler's numbers     ratio, drawn
    top-p left in the sampler                         gradient
    stale log-probabilities                           drawn
    answers tokenised again                           drawn, ratio
    the end left out of the answer                    gradient
    padding whitened                                  advantages
    groups without spread                             advantages
    value at the next token                           gradient, advantages
    value after the end                               advantages
    advantages of another group                       gradient, advantages
    reference that is the policy                      gradient, kl
    reference updated along                           kl
    score of another answer                           score, gradient
    columns of other rows                             rows
    clipped on the other side                         (test_grpo.py, TRL's numbers)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from torch import Tensor

from pipeline import policy
from pipeline.losses import grpo, ppo
from tests.losses import oracle
from tests.losses.blocks import World

BLOCKS, WEIGHT, LIMIT = 16, 0.1, 5.0
K1 = {"weight": WEIGHT, "form": "k1_in_reward"}
RLOO = {"baseline": "leave_one_out", "standardise": False, "divisor": "constant", "kl": K1}
UNBIASED_PPO = {"gae_lambda": 1.0, "whiten": False, "kl_weight": WEIGHT}


@dataclass(frozen=True)
class Case:
    """A loss with settings, and the checks that hold for it."""

    loss: str
    settings: dict[str, Any]
    checks: str = "gradient ratio drawn score kl advantages rows"
    dropout: float = 0.0


CASES = {
    "rloo": Case("grpo", RLOO),
    "k2": Case("grpo", RLOO | {"kl": {"weight": WEIGHT, "form": "k2"}}),
    "standardised": Case(
        "grpo", RLOO | {"baseline": "group", "standardise": True}, "ratio drawn score kl advantages rows"
    ),
    "dropout": Case("grpo", RLOO, dropout=0.3),
    "ppo": Case("ppo", UNBIASED_PPO),
    "whitened": Case("ppo", UNBIASED_PPO | {"gae_lambda": 0.9, "whiten": True}, "ratio drawn score kl advantages rows"),
}


class Evidence(NamedTuple):
    """Figures of a run: distances from exact values, each 0 but for chance or rounding."""

    gradient: float
    """Largest t value of 15 directions."""
    ratio: float
    drawn: float
    score: float
    kl: float
    """Largest t value."""
    advantages: float
    rows: float


BOUNDS = Evidence(LIMIT, 1e-4, 1e-4, 1e-6, LIMIT, 1e-4, 1e-5)


def failed(case: Case) -> set[str]:
    """The checks that a run fails, of those that the case names."""
    found = evidence(case)
    return {name for name in case.checks.split() if not getattr(found, name) <= getattr(BOUNDS, name)}  # NaN fails


def evidence(case: Case) -> Evidence:
    """A run of some blocks with fixed weights, and of more after an update."""
    world, ratios = World(case.loss, dropout=case.dropout, **case.settings), list[Tensor]()
    surrogate = policy.clipped_surrogate

    def spy(ratio_N: Tensor, *more: Any) -> Tensor:
        ratios.append(ratio_N.detach())
        return surrogate(ratio_N, *more)

    with mock.patch.object(policy, "clipped_surrogate", spy):
        before = oracle.exact(world.model, world.reference)
        gradients, kls, drawn, score, advantages, rows = [], [], 0.0, 0.0, 0.0, 0.0
        for number in range(BLOCKS):
            block = world.fill(number)
            world.model.train()
            batch = world.batch()
            losses_B = world.loss.losses(world.model, batch)
            scale = float(oracle.MAX_TOKENS if case.loss == "grpo" else batch["divisor"][0])
            gradients.append(oracle.gradient_of(losses_B.mean() * scale, world.model))
            kls.append(world.loss.figures["kl_nats"])
            if number < 2:
                drawn, score = max(drawn, drawn_error(before, block)), max(score, score_error(block))
                advantages = max(advantages, advantages_error(world))
                rows = max(rows, rows_error(world, losses_B.detach()))
        with torch.no_grad():
            for parameter in world.model.parameters():
                parameter += 0.3 * torch.sign(parameter) * parameter.abs().mean()
        after = oracle.exact(world.model, world.reference)
        later = []
        for number in range(BLOCKS, BLOCKS + 6):
            drawn = max(drawn, drawn_error(after, world.fill(number)))
            later.append(world.loss.figures["kl_nats"])
    wanted_X = WEIGHT * before.kl_X - before.reward_X
    t_K = oracle.t_values(torch.stack(gradients), wanted_X, oracle.directions(before))
    ratio = max(float((ratio_N - 1).abs().max()) for ratio_N in ratios)
    kl = max(t_value(kls, float(before.kl)), t_value(later, float(after.kl)))
    return Evidence(float(t_K.abs().max()), ratio, drawn, score, kl, advantages, rows)


def t_value(numbers: Sequence[float], expected: float) -> float:
    numbers_N = torch.tensor(numbers, dtype=torch.float64)
    return float((numbers_N.mean() - expected).abs() / (numbers_N.std() / len(numbers) ** 0.5).clamp(min=1e-9))
