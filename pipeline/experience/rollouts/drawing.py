"""Answers that the model in training draws to prompts, with their log-probabilities.

On a CPU the decoding engine draws them: answers leave the batch where they end, and the answers to one prompt share its
prefill. It gives the log-probabilities too where they are those of the training forward up to 1e-6 nats: at temperature
1, in float32, with the network that is trained (tests/experience/test_rollouts.py). Elsewhere (bfloat16, lowered
weights, other temperatures, a GPU) a pass of the training forward gives them, so that the ratio of the first update of
a block to the policy that answered is 1 up to rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from pipeline.config.recipe import Compute
from pipeline.inference.answers import ends
from pipeline.inference.engine import Engine, RowSettings
from pipeline.inference.generation import generate
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.seeds import seed_for
from pipeline.tasks import Task

_ROWS = 256  # rows of the engine: a large buffer is drawn in several waves


class Answer(NamedTuple):
    """A drawn answer."""

    ids: tuple[int, ...]
    """The stop id included where it ended by one."""
    logprobs: tuple[float, ...] | None
    """Of the ids under the distribution that they were drawn from; None: to be computed by the training forward."""
    ended: bool


@dataclass(frozen=True)
class Draws:
    """How answers are drawn."""

    samples: int
    """Answers to a prompt."""
    max_tokens: int
    temperature: float
    seed: int
    """Of this block's draws."""


def draw(model: GPT, task: Task, prompts: Sequence[Sequence[int]], draws: Draws, compute: Compute) -> list[Answer]:
    """The answers to the prompts, those to the first one first; the model stays in the mode that it was in.

    Raises:
        UserError: a prompt that leaves no room for an answer.
    """
    training = model.training
    model.eval()
    try:
        if model.embed.weight.device.type == "cuda":
            return _together(model, task, prompts, draws, compute)
        return _by_engine(model, task, prompts, draws, compute)
    finally:
        model.train(training)


def steps(model: GPT, compute: Compute, rows: int, longest: int, number: int) -> Iterator[None]:
    """Draws answers of `number` tokens in so many rows that end at position `longest`, pausing after every token."""
    with torch.inference_mode(), autocast(compute):
        engine = Engine(model, max_rows=min(_ROWS, rows))
        prompt = [0] * max(1, min(longest, engine.room) - number - 1)
        engine.add(prompt, RowSettings(number, temperature=1.0), samples=min(_ROWS, rows))
        while engine.busy:
            engine.step()
            yield


def engine_is_exact(draws: Draws, compute: Compute) -> bool:
    """Whether the engine's log-probabilities are those of the training forward."""
    return draws.temperature == 1 and compute.precision == compute.weights == "float32" and not compute.compile


def _by_engine(
    model: GPT, task: Task, prompts: Sequence[Sequence[int]], draws: Draws, compute: Compute
) -> list[Answer]:
    exact, stop = engine_is_exact(draws, compute), frozenset(ends(task))
    ids: dict[int, list[int]] = {}
    logprobs: dict[int, list[float]] = {}
    ended: dict[int, bool] = {}
    with torch.inference_mode(), autocast(compute):
        engine = Engine(model, max_rows=min(_ROWS, len(prompts) * draws.samples), logprobs=exact)
        for number, prompt in enumerate(prompts):
            settings = RowSettings(
                draws.max_tokens, draws.temperature, stop=stop, seed=seed_for(draws.seed, "prompt", number)
            )
            for row in engine.add(prompt, settings, samples=draws.samples):
                ids[row], logprobs[row] = [], []
        while engine.busy:
            for token in engine.step():
                ids[token.row].append(token.id)
                logprobs[token.row].append(token.logprob)
                if token.finished is not None:
                    ended[token.row] = token.finished == "stop"
    return [Answer(tuple(ids[row]), tuple(logprobs[row]) if exact else None, ended[row]) for row in sorted(ids)]


def _together(model: GPT, task: Task, prompts: Sequence[Sequence[int]], draws: Draws, compute: Compute) -> list[Answer]:
    """On a GPU: all answers of a prompt length in one batch, by recorded steps."""
    rows = [list(prompt) for prompt in prompts for _ in range(draws.samples)]
    device = model.embed.weight.device
    with autocast(compute):
        found = generate(
            model, rows, max_tokens=draws.max_tokens, temperature=draws.temperature, top_k=0, top_p=1.0,
            stop={task.stop}, generator=torch.Generator(device).manual_seed(draws.seed),
        )  # fmt: skip
    room = model.room()
    return [
        _ended(ids, min(draws.max_tokens, room - len(prompt)), task) for prompt, ids in zip(rows, found, strict=True)
    ]


def _ended(ids: list[int], longest: int, task: Task) -> Answer:
    """The answer of drawn ids without the stop id: they end at end-of-text too, as the engine's do."""
    end = task.tokenizer.end_of_text
    if end in ids:
        return Answer(tuple(ids[: ids.index(end) + 1]), None, True)
    return Answer((*ids, task.stop), None, True) if len(ids) < longest else Answer(tuple(ids), None, False)
