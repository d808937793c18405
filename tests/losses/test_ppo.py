"""PPO: equal to a plain implementation that loops over tokens in float64."""

from typing import Any

import pytest
import torch

from pipeline.losses.ppo import PPO
from tests.losses import plain
from tests.losses.world import World


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"whiten": False, "gamma": 0.9, "gae_lambda": 0.8},
        {"value": {"weight": 0.5, "clip": None}, "entropy": 0.02, "kl_weight": 0.0},
    ],
    ids=str,
)
def test_ppo_equals_a_plain_implementation_on_the_same_buffer(changes: dict[str, Any]) -> None:
    """To 1e-6, before the first update of a block and after one that moved policy and values."""
    world = World("ppo", groups=4, samples=3, **changes)
    loss, model = world.loss, world.model
    assert isinstance(loss, PPO)
    world.fill(0)
    block = world.buffer
    before = [plain.values(loss, one.prompt, one.answer) for one in block.rollouts]

    def log_ratio(one: Any, t: int) -> float:
        theirs = plain.logprobs(world.reference, one.prompt, one.answer, block.temperature)
        return float(one.logprobs[t] - theirs[t][one.answer[t]])

    columns = plain.token_advantages(loss, block.rollouts, block.scores_E.tolist(), log_ratio, before)
    for _ in range(2):
        expected = plain.ppo_losses(loss, model, block, columns, before)
        found = loss.losses(model, world.batch())
        torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-6)
        found.mean().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for p in [*model.parameters(), *loss.modules.parameters()]:
                p -= 0.5 * p.grad if p.grad is not None else 0.0
