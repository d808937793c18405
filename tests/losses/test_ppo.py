"""PPO: equal to a plain implementation that loops over tokens in float64."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.errors import UserError
from pipeline.losses.ppo import PPO
from tests.losses import oracle, plain
from tests.losses.world import World, learner
from tests.variants import build


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


def test_value_model_begins_as_the_judges_reward_model() -> None:
    """Trunk and head, trained apart from it: the judge must stay as it is."""
    judged = oracle.policy(5)
    judged.add_score(1, torch.Generator().manual_seed(1))
    judged.requires_grad_(False)
    one = replace(learner(oracle.policy(), oracle.policy(1), 4), judge=SimpleNamespace(model=judged))
    loss = build("losses", "ppo", one)
    ids = torch.tensor([[2, 1, 3, 0]])
    batch = {"inputs": ids, "targets": torch.full((1, 4), -100)}
    batch["targets"][0, -1] = 0
    torch.testing.assert_close(loss.value(batch), judged.classify(ids)[0])
    assert judged.head is not None
    assert all(p.requires_grad for p in loss.modules.parameters())
    assert not {id(p) for p in judged.parameters()} & {id(p) for p in loss.modules.parameters()}


def test_value_model_shares_the_weights_that_the_tuner_freezes() -> None:
    """A second copy of a large frozen base would double the memory; what is trained must not be shared."""
    model = oracle.policy()
    build("tuners", "lora").apply(model, torch.Generator().manual_seed(1), lambda _: [1])
    loss = build("losses", "ppo", learner(model, oracle.policy(1), 4))
    theirs = {id(p) for p in model.parameters()}
    assert {p.requires_grad for p in loss.modules.parameters() if id(p) in theirs} == {False}
    assert {p.requires_grad for p in loss.modules.parameters() if id(p) not in theirs} == {True}
    assert all(id(p) in theirs for p in loss.modules.parameters() if not p.requires_grad)


def test_value_model_refuses_a_reward_model_of_a_shorter_context() -> None:
    judged = oracle.policy(5, context_length=4)
    judged.add_score(1, torch.Generator().manual_seed(1))
    one = replace(learner(oracle.policy(), oracle.policy(1), 4), judge=SimpleNamespace(model=judged))
    with pytest.raises(UserError, match="judge has a context of 4 tokens, the trained model 8"):
        build("losses", "ppo", one)
