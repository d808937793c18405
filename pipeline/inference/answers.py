"""Answers in text: prompts, generation and decoding for a task. Evaluation, the predictor and chat answer through here.

A request's `max_tokens` only stops an answer; it never changes the prompt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from pipeline.inference.answer_text import AnswerText
from pipeline.inference.generation import generate, stream
from pipeline.model.gpt import GPT
from pipeline.tasks import Request, Task


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    max_tokens: int
    """Most tokens of one answer."""
    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_k: int = 0
    """0 draws from all tokens."""
    top_p: float = 1.0
    """1 draws from all tokens."""


def answer(
    model: GPT, task: Task, requests: Sequence[Request], sampling: Sampling, seeds: Sequence[int] | None = None
) -> list[str]:
    """The answers to requests, computed as one batch.

    Args:
        model: a model of this task.
        task: gives prompts, the end of an answer and its text.
        requests: in any order.
        sampling: how tokens are drawn.
        seeds: of the draws, one for each request; may be None at temperature 0.

    Raises:
        UserError: an impossible sampling setting.
    """
    outputs = generate(
        model, [task.prompt(request) for request in requests], max_tokens=sampling.max_tokens,
        temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, stop=ends(task),
        seeds=seeds,
    )  # fmt: skip
    return [task.answer(task.tokenizer.decode(ids)) for ids in outputs]


def stream_answer(
    model: GPT, task: Task, request: Request, sampling: Sampling, generator: torch.Generator
) -> Iterator[str]:
    """The answer to a request in pieces of whole characters; arguments and errors as of `answer`."""
    text = AnswerText(task)
    for token in stream(
        model, task.prompt(request), max_tokens=sampling.max_tokens, temperature=sampling.temperature,
        top_k=sampling.top_k, top_p=sampling.top_p, stop=ends(task), generator=generator,
    ):  # fmt: skip
        if piece := text.add(token):
            yield piece
    yield text.end()


def ends(task: Task) -> set[int]:
    """The ids that end an answer: the task's, and end-of-text, which a model with a chat template may give instead."""
    return {task.stop, task.tokenizer.end_of_text}
