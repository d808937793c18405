"""Evidence of a loss on the oracle's world: the distance of every sampled figure from its exact value."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from pipeline import policy
from pipeline.losses.grpo import GRPO
from pipeline.losses.ppo import PPO
from tests.losses import oracle, plain
from tests.losses.world import World

BLOCKS, WEIGHT, LIMIT = 16, 0.1, 5.0


@dataclass(frozen=True)
class Case:
    """A loss with settings, and the checks that hold for it."""

    loss: str
    settings: dict[str, Any]
    checks: str = "gradient ratio drawn score kl advantages rows"
    dropout: float = 0.0
    temperature: float = 1.0
    kl_weight: float = WEIGHT
    """Of the exact gradient."""
    blocks: int = BLOCKS
    """Whose gradients are averaged."""


class Evidence(NamedTuple):
    """Figures of a run, each 0 but for chance (t values) or rounding (the others)."""

    gradient: float
    """Largest t value of 15 directions."""
    ratio: float
    drawn: float
    score: float
    kl: float
    """Largest t value of two policies."""
    advantages: float
    rows: float


BOUNDS = Evidence(gradient=LIMIT, ratio=1e-4, drawn=1e-4, score=1e-6, kl=LIMIT, advantages=1e-4, rows=1e-5)


def failed(case: Case, checks: str = "", again: bool = True) -> set[str]:
    """The checks that a run fails, of the case's or of these; `again`: with the draws of earlier runs."""
    case = replace(case, checks=checks or case.checks)
    found = evidence(case, again)
    return {name for name in case.checks.split() if not getattr(found, name) <= getattr(BOUNDS, name)}  # NaN fails


def evidence(case: Case, again: bool = True) -> Evidence:
    """A run of some blocks with fixed weights, and of more with other weights; fewer where no check needs a mean."""
    checks = set(case.checks.split())
    blocks = case.blocks if checks & {"gradient", "kl"} else 1
    later_blocks = 8 if "kl" in checks else 1
    world = World(case.loss, dropout=case.dropout, temperature=case.temperature, **case.settings)
    ratios = list[Tensor]()
    surrogate = policy.clipped_surrogate

    def spy(ratio_N: Tensor, *more: Any) -> Tensor:
        ratios.append(ratio_N.detach())
        return surrogate(ratio_N, *more)

    before = oracle.exact(world.model, world.reference, case.temperature)
    gradients, kls = list[Tensor](), list[float]()
    drawn = score = advantages = rows = 0.0
    with mock.patch.object(policy, "clipped_surrogate", spy):
        for number in range(blocks):
            world.fill(number, again)
            world.model.train()
            scale = oracle.MAX_TOKENS if case.loss == "grpo" else float(world.buffer.columns["divisor"][0])
            if checks & {"gradient", "ratio"}:
                gradients.append(world.gradient(number) * scale)
            kls.append(world.figures.get("kl_nats", float("nan")))
            if number == 0:
                drawn, score = drawn_error(before, world), score_error(world)
                advantages, rows = advantages_error(world, before), rows_error(world)
    with torch.no_grad():
        for parameter in world.model.parameters():
            parameter *= 1.2
    world.model.eval()
    after, later = oracle.exact(world.model, world.reference, case.temperature), list[float]()
    for number in range(case.blocks, case.blocks + later_blocks):
        world.fill(number, again)
        drawn = max(drawn, drawn_error(after, world))
        later.append(world.figures.get("kl_nats", float("nan")))
    wanted_X = case.kl_weight * before.kl_X - before.reward_X
    t_K = oracle.t_values(torch.stack(gradients), wanted_X, oracle.directions(before)) if gradients else torch.zeros(1)
    ratio = max((float((ratio_N - 1).abs().max()) for ratio_N in ratios), default=0.0)
    kl = max(t_value(kls, float(before.kl)), t_value(later, float(after.kl)))
    return Evidence(float(t_K.abs().max()), ratio, drawn, score, kl, advantages, rows)


def t_value(numbers: Sequence[float], expected: float) -> float:
    """Distance of the mean from the expectation in standard errors; NaN for one number."""
    if len(numbers) < 2:
        return float("nan")
    numbers_N = torch.tensor(numbers, dtype=torch.float64)
    return float((numbers_N.mean() - expected).abs() / (numbers_N.std() / len(numbers) ** 0.5).clamp(min=1e-9))


def drawn_error(exact: oracle.Exact, world: World) -> float:
    """Largest difference of a log-probability from the enumeration; infinite for an answer that cannot be drawn."""
    errors = [0.0]
    for one in world.buffer.rollouts:
        expected = exact.logprobs.get((one.prompt, one.answer), ())
        if len(expected) != len(one.logprobs):
            return float("inf")
        errors += [abs(a - b) for a, b in zip(expected, one.logprobs, strict=True)]
    return max(errors)


def score_error(world: World) -> float:
    """Largest difference of a score from that of the rollout's own record and ids."""
    letters, errors = oracle.Letters(), list[float]()
    for one, score in zip(world.buffer.rollouts, world.buffer.scores_E.tolist(), strict=True):
        assert tuple(letters.encode(one.record["instruction"])) == one.prompt
        errors.append(abs(oracle.score(one.record, letters.decode(one.answer)) - score))
    return max(errors)


def advantages_error(world: World, exact: oracle.Exact) -> float:
    """Largest difference from plain.py, over the answer tokens."""
    block, columns = world.buffer, world.buffer.columns
    log_ratio = plain.log_ratios(exact.logprobs, exact.reference)
    scores = [oracle.score(one.record, oracle.Letters().decode(one.answer)) for one in block.rollouts]
    found_E = columns["advantages"].double()
    if isinstance(world.loss, GRPO):
        expected = plain.group_advantages(world.loss, block.rollouts, scores, log_ratio)
        return float((found_E - torch.tensor(expected, dtype=torch.float64)).abs().max())
    assert isinstance(world.loss, PPO)
    before = [plain.values(world.loss, one.prompt, one.answer) for one in block.rollouts]
    advantages, _ = plain.token_advantages(world.loss, block.rollouts, scores, log_ratio, before)
    errors = []
    for one, row_T, expected in zip(block.rollouts, found_E, advantages, strict=True):
        start = len(one.prompt) - 1
        row = row_T[start : start + len(expected)]
        errors.append(float((row - torch.tensor(expected, dtype=torch.float64)).abs().max()))
    return max(errors)


def rows_error(world: World) -> float:
    """Largest difference of a row's loss in the micro-batches of the update from that in the whole block."""
    with torch.no_grad():
        whole_B, errors = world.loss.losses(world.model, world.batch()), list[float]()
        for micro_batch in world.experience.batches(0):
            part_B = world.loss.losses(world.model, micro_batch())
            errors.append(float((part_B - whole_B[micro_batch.rows]).abs().max()))
    return max(errors)
