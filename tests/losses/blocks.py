"""Blocks of rollouts of the oracle's world, and their batches with columns."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.contracts import Batch
from pipeline.inference.engine import Engine, RowSettings
from pipeline.losses import Loss
from pipeline.losses.ppo import PPO
from pipeline.model.gpt import GPT
from pipeline.prompts.request import Request
from pipeline.seeds import seed_for
from tests.losses import oracle
from tests.variants import build


class Rollout(NamedTuple):
    record: Any
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    ended: bool
    group: int


class Block:
    """Rollouts as examples."""

    def __init__(self, rollouts: Sequence[Rollout], scores_E: Tensor, temperature: float, max_tokens: int) -> None:
        self.rollouts, self.scores_E = rollouts, scores_E
        self.temperature, self.max_tokens = temperature, max_tokens

    def __len__(self) -> int:
        return len(self.rollouts)

    def __getitem__(self, i: int) -> Any:
        return oracle.example(self.rollouts[i].prompt, self.rollouts[i].answer)


def drawn(model: GPT, samples: int, seed: int, temperature: float = oracle.TEMPERATURE, groups: int = 4) -> Block:
    """Samples of every prompt."""
    task, rollouts = oracle.task(), []
    records = [oracle.RECORDS[group % len(oracle.RECORDS)] for group in range(groups)]
    engine = Engine(model.eval(), max_rows=samples * groups)
    rows: dict[int, tuple[list[int], list[float]]] = {}
    for group, record in enumerate(records):
        prompt = task.prompt(Request(record["instruction"]))
        settings = RowSettings(
            oracle.MAX_TOKENS, temperature, stop=frozenset({task.stop}), seed=seed_for(seed, "rollouts", group)
        )
        for row in engine.add(prompt, settings, samples=samples):
            rows[row] = ([], [])
            assert row // samples == group
    while engine.busy:
        for token in engine.step():
            rows[token.row][0].append(token.id)
    for row, (ids, _) in sorted(rows.items()):
        group = row // samples
        record = records[group]
        prompt = tuple(task.prompt(Request(record["instruction"])))
        text = task.answer(oracle.Letters().decode(ids))
        rollouts.append(Rollout(record, prompt, tuple(ids), (), text, ids[-1] == 0, group))
    with torch.no_grad():
        logprobs = _logprobs(model, task, rollouts, temperature)
    rollouts = [one._replace(logprobs=tuple(values)) for one, values in zip(rollouts, logprobs, strict=True)]
    scores = torch.tensor([oracle.score(one.record, one.text) for one in rollouts])
    return Block(rollouts, scores, temperature, oracle.MAX_TOKENS)


def _logprobs(model: GPT, task: Any, rollouts: Sequence[Rollout], temperature: float) -> list[list[float]]:
    batch = task.collate([oracle.example(one.prompt, one.answer) for one in rollouts])
    made = task.predictions(model, batch)
    logprobs = (made.scores_NC / temperature).log_softmax(-1).gather(1, made.targets_N[:, None])[:, 0].tolist()
    found: list[list[float]] = [[] for _ in rollouts]
    for row, value in zip(made.rows_N.tolist(), logprobs, strict=True):
        found[row].append(value)
    return found


def columns_of(loss: Loss, model: GPT, block: Block) -> dict[str, Tensor]:
    """Columns of the experience and of the loss."""
    width = max(len(one.prompt) + len(one.answer) - 1 for one in block.rollouts)
    behaviour = torch.zeros(len(block), width)
    for row, one in enumerate(block.rollouts):
        start = len(one.prompt) - 1
        behaviour[row, start : start + len(one.answer)] = torch.tensor(one.logprobs)
    return {
        "behaviour_logprobs": behaviour,
        "score": block.scores_E,
        "group": torch.tensor([one.group for one in block.rollouts]),
        "ended": torch.tensor([float(one.ended) for one in block.rollouts]),
        **loss.columns(model, block),
    }


def batch_of(block: Block, columns: dict[str, Tensor], rows: Sequence[int] | None = None) -> Batch:
    """Rows of a block with their columns."""
    rows = list(range(len(block))) if rows is None else list(rows)
    batch = oracle.task().collate([block[row] for row in rows])
    for name, value in columns.items():
        part = value[rows]
        batch[name] = part[:, : batch["inputs"].shape[1]] if part.dim() > 1 else part
    return batch


class World:
    """A loss of the oracle's world on blocks of its own rollouts."""

    def __init__(self, name: str, groups: int = 64, samples: int = 4, dropout: float = 0.0, **changes: Any) -> None:
        self.model, self.reference = oracle.policy(0, dropout=dropout), oracle.policy(1, 9.0)
        self.loss = build("losses", name, oracle.learner(self.model, self.reference), **changes)
        if isinstance(self.loss, PPO):
            with torch.no_grad():
                self.loss.value.head.weight.normal_(0.0, 1.0, generator=torch.Generator().manual_seed(3))
        self.groups, self.samples = groups, samples

    def fill(self, number: int) -> Block:
        self.block = drawn(self.model, self.samples, number, groups=self.groups)
        self.columns = columns_of(self.loss, self.model, self.block)
        return self.block

    def batch(self, rows: Sequence[int] | None = None) -> Batch:
        return batch_of(self.block, self.columns, rows)
