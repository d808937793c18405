"""A conversation with a model in the terminal: its prompt, and its answer in pieces as they are made."""

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import torch

from pipeline import config, files, foreign
from pipeline.cli._opening import opening
from pipeline.data.conversations import Earlier, Turn
from pipeline.errors import UserError
from pipeline.evaluation import Subject, open_subject, text_scores
from pipeline.inference.answers import Sampling, stream_answer
from pipeline.paths import MODELS
from pipeline.prompts.spec import REWARD
from pipeline.seeds import seed_for
from pipeline.tasks import Request, Scoring


def talk(name: str, sampling: Sampling, seed: int | None) -> None:
    """Answers line by line until the end of the input.

    Args:
        name: a folder below models/, or models:/NAME@ALIAS.
        sampling: how tokens are drawn.
        seed: of the draws; None gives another answer each time.

    Raises:
        UserError: no such model, or a reward model.
    """
    subject, recipe = _open(name)
    if subject.tasks[0].spec.name == REWARD:
        raise UserError(
            f"{name} is a reward model: it scores answers and gives none; chat with another model. Its registered "
            "version scores a table with the columns text and answer, `tohum serve` the answers of a POST /v1/classify"
        )
    for sentence in opening(subject, config.load(), recipe):
        click.echo(sentence, err=True)
    generator = _generator(seed, subject.model.embed.weight.device)
    turns: list[Turn] = []
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        answer = ""
        for piece in _answer(subject, line, turns, sampling, generator):
            print(piece, end="", flush=True)
            answer += piece
        print()
        if subject.tasks[0].spec.name == "chat" and answer.strip():  # other tasks have a single turn
            turns.append(Turn(line, answer))


def _generator(seed: int | None, device: torch.device) -> torch.Generator:
    """The source of the draws, on the model's device, as `torch.multinomial` demands; None: a random seed."""
    return torch.Generator(device).manual_seed(seed_for(secrets.randbits(62) if seed is None else seed, "chat"))


def _open(name: str) -> tuple[Subject, str | None]:
    """The model, and its name in params.yaml; None where this project does not have the model's training data."""
    params = config.load()
    if name.startswith("models:/"):
        from pipeline.registry import download

        folder = download(name, params)
        own = MODELS / folder.name
        same = own.is_dir() and _same_model(own, folder)
        return open_subject(folder.name, params.compute, folder.parent), folder.name if same else None
    return open_subject(name, params.compute), name


def _same_model(own: Path, registered: Path) -> bool:
    """Whether a folder of this project is the registered one; that one has all weights, ours perhaps not."""
    if (own / foreign.BASE).is_file():
        own, registered = own / "adapter", registered / "adapter"
    return registered.is_dir() and files.sha256_of(own) == files.sha256_of(registered)


def _answer(
    subject: Subject, line: str, turns: list[Turn], sampling: Sampling, generator: torch.Generator
) -> Iterator[str]:
    """The answer to a line after the former turns, in pieces of whole characters."""
    return answer_to(subject, Request(line, "", Earlier("", tuple(turns))), sampling, generator)


def answer_to(subject: Subject, request: Request, sampling: Sampling, generator: torch.Generator) -> Iterator[str]:
    """The answer to a request, in pieces of whole characters: labels with probabilities, a number, or text."""
    task = subject.tasks[0]
    if isinstance(task, Scoring):
        yield task.shown(task.answers(text_scores(subject, task, [request.text], 1))[0])
        return
    yield from stream_answer(subject.model, task, request, sampling, generator)
