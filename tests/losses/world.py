"""The oracle's world on the real path: rollouts, judge, columns, losses and updates of a training."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from pipeline.config.recipe import Schedule
from pipeline.contracts import Batch, Judged, Learner
from pipeline.experience import Context, batch_of, rollouts
from pipeline.experience.rollouts.buffer import Buffer
from pipeline.experience.rollouts.drawing import draw
from pipeline.judges import Judge
from pipeline.losses import Loss
from pipeline.losses.grpo import GRPO
from pipeline.losses.ppo import PPO
from pipeline.model.gpt import GPT
from pipeline.training.loop import Parts, Step, _accumulate, fit
from tests.learners import COMPUTE, Records
from tests.losses import oracle
from tests.variants import build

CPU = torch.device("cpu")
_DRAWN: dict[Any, Any] = {}


class Scores(Judge):
    """The oracle's score of each answer."""

    def scores(self, judged: Sequence[Judged]) -> Tensor:
        return torch.tensor([oracle.score(one.record, one.text) for one in judged])


def learner(model: Any, reference: Any, groups: int) -> Learner:
    """Of the world's prompts, each so often that a block of `groups` prompts has all of them equally often."""
    task = oracle.task()
    prompts = [oracle.RECORDS[i % len(oracle.RECORDS)] for i in range(groups)]
    examples: Any = Records(prompts, task)
    return Learner(model, task, examples, COMPUTE, oracle.Letters(), lambda: reference, Scores())  # type: ignore[arg-type]


class World:
    """A recipe in the world: policy, reference, loss and experience."""

    def __init__(
        self,
        name: str,
        groups: int = 64,
        samples: int = 4,
        temperature: float = 1.0,
        dropout: float = 0.0,
        accumulate: int = 2,
        updates: int = 1,
        start: GPT | None = None,
        **changes: Any,
    ) -> None:
        self.model, self.reference = oracle.policy(0, dropout=dropout), oracle.policy(1, 9.0)
        if start is not None:
            self.model, self.reference = start, copy.deepcopy(start)
        self.learner = learner(self.model, self.reference, groups)
        self.loss: Loss = build("losses", name, self.learner, **changes)
        if isinstance(self.loss, PPO):
            with torch.no_grad():
                self.loss.value.head.weight.normal_(0.0, 1.0, generator=torch.Generator().manual_seed(3))
        self.ordering = build(
            "ordering", "shuffled", self.learner, batch_size=groups * samples // (accumulate * updates)
        )
        context = Context(
            self.learner, self.ordering, self.loss, lambda n: range(n * accumulate, (n + 1) * accumulate),
            1, self.learner.examples, "finetune.tried",
        )  # fmt: skip
        self.accumulate = accumulate
        self.experience: rollouts.Rollouts = build(
            "experience", "rollouts", context, prompts=groups, samples=samples, updates=updates,
            max_tokens=oracle.MAX_TOKENS, temperature=temperature,
        )  # fmt: skip

    @property
    def buffer(self) -> Buffer:
        """The newest block."""
        assert self.experience._buffer is not None
        return self.experience._buffer

    @property
    def figures(self) -> dict[str, float]:
        """Of the newest block."""
        assert isinstance(self.loss, GRPO | PPO)
        return self.loss.figures

    def fill(self, number: int, again: bool = False) -> None:
        """Draws the block of update `number`; `again`: takes the draws of an earlier call with equal weights."""
        memo = mock.patch.object(rollouts, "draw", self._drawn_before) if again else nullcontext()
        with memo:
            self.experience.begin(self.model, number)

    def _drawn_before(self, model: GPT, task: Any, prompts: Any, draws: Any, compute: Any) -> Any:
        weights = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
        key = (weights, draws, tuple(map(tuple, prompts)))
        if key not in _DRAWN:
            _DRAWN[key] = draw(model, task, prompts, draws, compute)
        return _DRAWN[key]

    def batch(self) -> Batch:
        """The whole block in its own order."""
        rows = torch.arange(len(self.buffer)).numpy()
        return batch_of(self.model, oracle.task(), self.buffer, rows, self.buffer.all_columns)

    def parts(self, steps: int = 1, optimizer: Any = None) -> Parts:
        schedule = Schedule(
            shape="constant", steps=steps, warmup_steps=0, final_share=1.0, accumulate=self.accumulate,
            batch_warmup_steps=0, clip_norm=0.0,
        )  # fmt: skip
        return Parts(
            task=oracle.task(), loss=self.loss, ordering=self.ordering, weighting=build("weighting", "uniform", None),
            optimizer=optimizer, schedule=schedule, compute=COMPUTE, seed=1,
        )  # fmt: skip

    def gradient(self, number: int) -> Tensor:
        """gradient_X of update `number` by the training loop, float64."""
        self.model.train()
        self.model.zero_grad()
        _accumulate(self.model, self.parts(), self.experience, number, CPU)
        return torch.cat([p.grad.reshape(-1) for p in self.model.parameters() if p.grad is not None]).double()

    def trained(self, steps: int, rate: float) -> Iterator[Step]:
        """Updates by Adam."""
        weights = [*self.model.parameters(), *self.loss.modules.parameters()]
        optimizer = torch.optim.Adam(weights, lr=rate)
        for group in optimizer.param_groups:
            group |= {"peak": rate, "begins": 0.0}
        return fit(self.model, self.parts(steps, optimizer), self.experience)
