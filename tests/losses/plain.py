"""Advantages and PPO's losses as a reader would compute them: loops over answers and tokens, float64."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from pipeline.losses.grpo import GRPO
from pipeline.losses.ppo import PPO
from pipeline.model.gpt import GPT

Ids = tuple[int, ...]
LogRatio = Callable[[Any, int], float]
"""(rollout, t) -> ln p - ln q of token t of its answer."""


def logprobs(model: GPT, prompt: Ids, answer: Ids, temperature: float) -> list[list[float]]:
    """ln p of every id at every token of the answer, a row at a time."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]]))[0].double() / temperature
    rows: list[list[float]] = logits.log_softmax(-1)[len(prompt) - 1 : -1].tolist()
    return rows


def values(loss: PPO, prompt: Ids, answer: Ids) -> list[float]:
    """The value before every token of the answer: of the prompt and the tokens so far."""
    with torch.no_grad():
        states = [torch.tensor([[*prompt, *answer[:t]]]) for t in range(len(answer))]
        return [float(loss.value.head(loss.value.trunk.hidden(state)[0, -1])) for state in states]


def group_advantages(loss: GRPO, rollouts: Sequence[Any], scores: Sequence[float], log_ratio: LogRatio) -> list[float]:
    """One advantage an answer."""
    settings, rewards = loss.settings, list(scores)
    if settings.kl.form == "k1_in_reward" and settings.kl.weight:
        for i, one in enumerate(rollouts):
            rewards[i] -= settings.kl.weight * sum(log_ratio(one, t) for t in range(len(one.answer)))
    advantages = []
    for i, one in enumerate(rollouts):
        group = [reward for reward, other in zip(rewards, rollouts, strict=True) if other.group == one.group]
        if max(group) - min(group) < 1e-9:
            advantages.append(0.0)
            continue
        if settings.baseline == "group":
            advantage = rewards[i] - statistics.mean(group)
        else:
            advantage = rewards[i] - (sum(group) - rewards[i]) / (len(group) - 1)
        advantages.append(advantage / (statistics.stdev(group) + 1e-4) if settings.standardise else advantage)
    return advantages


def token_advantages(
    loss: PPO, rollouts: Sequence[Any], scores: Sequence[float], log_ratio: LogRatio, before: Sequence[Sequence[float]]
) -> tuple[list[list[float]], list[list[float]]]:
    """Advantages and returns of every token. `before`: the values when the block was filled."""
    settings, advantages, returns = loss.settings, [], []
    for one, score, row in zip(rollouts, scores, before, strict=True):
        last, advantage, made = len(one.answer) - 1, 0.0, list[float]()
        for t in range(last, -1, -1):
            reward = -settings.kl_weight * log_ratio(one, t) + (score if t == last else 0.0)
            following = row[t + 1] if t < last else 0.0
            advantage = reward + settings.gamma * (following + settings.gae_lambda * advantage) - row[t]
            made.append(advantage)
        advantages.append(made[::-1])
        returns.append([advantage + value for advantage, value in zip(made[::-1], row, strict=True)])
    if settings.whiten:
        chosen = [advantage for row in advantages for advantage in row]
        mean, deviation = statistics.mean(chosen), math.sqrt(statistics.variance(chosen) + 1e-8)
        advantages = [[(advantage - mean) / deviation for advantage in row] for row in advantages]
    return advantages, returns


def ppo_losses(
    loss: PPO, model: GPT, block: Any, columns: tuple[list[list[float]], list[list[float]]],
    before: Sequence[Sequence[float]],
) -> list[float]:  # fmt: skip
    """losses_E of a block from `token_advantages`, with the model and the values of now."""
    settings, losses = loss.settings, []
    count = sum(len(one.answer) for one in block.rollouts)
    for one, advantages, returns, row in zip(block.rollouts, *columns, before, strict=True):
        ours = logprobs(model, one.prompt, one.answer, block.temperature)
        now, total = values(loss, one.prompt, one.answer), 0.0
        for t, token in enumerate(one.answer):
            ratio = math.exp(ours[t][token] - one.logprobs[t])
            limited = min(max(ratio, 1 - settings.clip.low), 1 + settings.clip.high)
            total -= min(ratio * advantages[t], limited * advantages[t])
            error = (now[t] - returns[t]) ** 2
            if settings.value.clip is not None:
                change = min(max(now[t] - row[t], -settings.value.clip), settings.value.clip)
                error = max(error, (row[t] + change - returns[t]) ** 2)
            total += settings.value.weight * error / 2
            total -= settings.entropy * -sum(math.exp(x) * x for x in ours[t])
        losses.append(total / (count / len(block)))
    return losses


def log_ratios(ours: Mapping[Any, Sequence[float]], theirs: Mapping[Any, Sequence[float]]) -> LogRatio:
    """From tables (prompt, answer) -> ln p of every token; NaN for an answer that is not in them."""
    nothing = (math.nan,) * 9
    return lambda one, t: (
        ours.get((one.prompt, one.answer), nothing)[t] - theirs.get((one.prompt, one.answer), nothing)[t]
    )
