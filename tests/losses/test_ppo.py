"""PPO: equal to a plain implementation that loops over tokens in float64."""

import math
from typing import Any

import pytest
import torch

from pipeline.losses.ppo import PPO
from pipeline.model.gpt import GPT
from tests.losses import oracle
from tests.losses.blocks import Block, batch_of, columns_of, drawn
from tests.variants import build


def with_values(loss: PPO, seed: int = 3) -> PPO:
    """The loss with a value head that says something."""
    with torch.no_grad():
        loss.value.head.weight.normal_(0.0, 1.0, generator=torch.Generator().manual_seed(seed))
    return loss


def plain_logprobs(
    model: GPT, prompt: tuple[int, ...], answer: tuple[int, ...], temperature: float
) -> list[list[float]]:
    """ln p of every id at every token of the answer, a row at a time."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]]))[0].double() / temperature
    return logits.log_softmax(-1)[len(prompt) - 1 : -1].tolist()


def plain_values(loss: PPO, prompt: tuple[int, ...], answer: tuple[int, ...]) -> list[float]:
    """The value before every token of the answer: of the prompt and the tokens so far."""
    with torch.no_grad():
        states = [torch.tensor([[*prompt, *answer[:t]]]) for t in range(len(answer))]
        return [float(loss.value.head(loss.value.trunk.hidden(state)[0, -1])) for state in states]


def plain_ppo(loss: PPO, model: GPT, reference: GPT, block: Block, before: list[list[float]]) -> list[float]:
    """losses_E of a block; `before`: the values when it was filled."""
    settings, columns = loss.settings, []
    for one, score, values in zip(block.rollouts, block.scores_E.tolist(), before, strict=True):
        theirs = plain_logprobs(reference, one.prompt, one.answer, block.temperature)
        last, advantage, row = len(one.answer) - 1, 0.0, []
        for t in range(last, -1, -1):
            reward = -settings.kl_weight * (one.logprobs[t] - theirs[t][one.answer[t]]) + (score if t == last else 0.0)
            following = values[t + 1] if t < last else 0.0
            advantage = (
                reward + settings.gamma * following - values[t] + (settings.gamma * settings.gae_lambda * advantage)
            )
            row.append((advantage, advantage + values[t]))
        columns.append(row[::-1])
    chosen = [advantage for row in columns for advantage, _ in row]
    mean, count = sum(chosen) / len(chosen), len(chosen)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in chosen) / (count - 1) + 1e-8)
    losses = []
    for one, row, values in zip(block.rollouts, columns, before, strict=True):
        ours = plain_logprobs(model, one.prompt, one.answer, block.temperature)
        now, total = plain_values(loss, one.prompt, one.answer), 0.0
        for t, token in enumerate(one.answer):
            advantage, target = row[t]
            if settings.whiten:
                advantage = (advantage - mean) / deviation
            ratio = math.exp(ours[t][token] - one.logprobs[t])
            limited = min(max(ratio, 1 - settings.clip.low), 1 + settings.clip.high)
            total -= min(ratio * advantage, limited * advantage)
            error = (now[t] - target) ** 2
            if settings.value.clip is not None:
                change = min(max(now[t] - values[t], -settings.value.clip), settings.value.clip)
                error = max(error, (values[t] + change - target) ** 2)
            total += settings.value.weight * error / 2
            total -= settings.entropy * -sum(math.exp(x) * x for x in ours[t])
        losses.append(total / (count / len(block)))
    return losses


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
    model, reference = oracle.policy(0), oracle.policy(1, 9.0)
    loss = with_values(build("losses", "ppo", oracle.learner(model, reference), **changes))
    block = drawn(model, samples=3, seed=5)
    before = [plain_values(loss, one.prompt, one.answer) for one in block.rollouts]
    batch = batch_of(block, columns_of(loss, model, block))
    for _ in range(2):
        expected = plain_ppo(loss, model, reference, block, before)
        found = loss.losses(model, batch)
        torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-6)
        found.mean().backward()
        with torch.no_grad():
            for p in [*model.parameters(), *loss.modules.parameters()]:
                p -= 0.5 * p.grad if p.grad is not None else 0.0
