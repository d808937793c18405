"""Rollouts of a tiny model: prompts, a judge by length, a loss with columns and a module of its own."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import policy
from pipeline.config.recipe import Compute, Schedule
from pipeline.contracts import Batch, Judged, Learner
from pipeline.experience import Context
from pipeline.experience.rollouts import Rollouts
from pipeline.judges import Judge
from pipeline.losses import Loss
from pipeline.model.gpt import GPT
from pipeline.ordering.shuffled import Shuffled
from pipeline.tasks import TaskContext
from pipeline.training.schedule import micro_batches
from tests.fakes import instruction
from tests.learners import COMPUTE, TOKENIZER, Records, small
from tests.variants import build

QUESTIONS = [instruction(f"Soru {i}?", "ab" * (1 + i % 3)) | {"id": f"r{i}", "origin": f"o{i}"} for i in range(10)]


class Lengths(Judge):
    """The score is the number of ids modulo 3; `calls` counts the calls."""

    def __init__(self, score: Callable[[Judged], float] = lambda one: float(len(one.answer) % 3)) -> None:
        self.score, self.calls = score, 0

    def scores(self, judged: Sequence[Judged]) -> Tensor:
        self.calls += 1
        return torch.tensor([self.score(one) for one in judged])


class Reinforce(Loss):
    """-advantage times the log-probability of the answer, and a module that learns the mean score."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.figures = learner, dict[str, float]()
        self.modules = nn.ModuleDict({"mean": nn.Linear(1, 1)})
        nn.init.zeros_(self.modules["mean"].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.modules["mean"].bias)  # type: ignore[arg-type]

    def columns(self, model: GPT, examples: Any) -> dict[str, Tensor]:
        groups_E = torch.tensor([rollout.group for rollout in examples.rollouts])
        self.figures = {"kl_nats": 0.25}
        return {"advantages": policy.group_advantages(examples.scores_E, groups_E, "group", False).float()}

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        predictions = self.learner.task.predictions(model, batch)
        logprobs_B = policy.sum_by_row(policy.logprobs_of(predictions), predictions)
        mean_B = self.modules["mean"](torch.ones(len(logprobs_B), 1))[:, 0]
        return (mean_B - batch["score"]).square() - batch["advantages"] * logprobs_B


def learner(model: GPT | None = None, judge: Judge | None = None, compute: Compute = COMPUTE) -> Learner:
    """A learner of prompts."""
    context = TaskContext(TOKENIZER, 48, [])  # type: ignore[arg-type]
    task = build("tasks", "prompts", context, template="chat", max_tokens=48, max_prompt_tokens=30)
    records = Records(QUESTIONS, task)
    return Learner(model or small(0), task, records, compute, TOKENIZER, judge=judge or Lengths())  # type: ignore[arg-type]


def rollouts(of: Learner | None = None, *, batch_size: int = 6, accumulate: int = 1, **changes: Any) -> Rollouts:
    """Blocks of 4 prompts with 3 answers for 2 updates."""
    one = of or learner()
    schedule = Schedule(
        shape="constant", steps=8, warmup_steps=0, final_share=1.0, accumulate=accumulate, batch_warmup_steps=0,
        clip_norm=1.0,
    )  # fmt: skip
    chosen = {"prompts": 4, "samples": 3, "updates": 2, "max_tokens": 6, "temperature": 1.0} | changes
    context = Context(
        one, Shuffled(batch_size), Reinforce(one), partial(micro_batches, schedule), 5, one.examples, "finetune.tried"
    )
    experience: Rollouts = build("experience", "rollouts", context, **chosen)
    return experience
