"""A conversation with a model in the terminal: its prompt, and its answer in pieces as they are made."""

import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click
import torch

from pipeline import config
from pipeline.data import templates
from pipeline.data.conversations import written
from pipeline.errors import UserError
from pipeline.evaluation import Subject, open_subject
from pipeline.inference.generation import stream
from pipeline.inference.labels import answers_with_label, predict
from pipeline.paths import MODELS
from pipeline.seeds import seed_for


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float
    """0 takes the likeliest token."""
    top_k: int
    """0 draws from all tokens."""
    top_p: float
    """1 draws from all tokens."""
    max_tokens: int
    """Of one answer."""


def talk(name: str, sampling: Sampling, seed: int | None) -> None:
    """Answers line by line until the end of the input.

    Args:
        name: a folder below models/, or models:/NAME@ALIAS.
        sampling: how tokens are drawn.
        seed: of the draws; None gives another answer each time.

    Raises:
        UserError: no such model.
    """
    subject = _open(name)
    click.echo(f"{subject.name}: {subject.task.get('objective', 'next_token')}. End with Ctrl-D.", err=True)
    generator = _generator(seed, subject.model.embed.weight.device)
    turns: list[tuple[str, str]] = []
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
        if subject.task.get("objective") == "chat" and answer.strip():  # other tasks have a single turn
            turns.append((line, answer))


def _generator(seed: int | None, device: torch.device) -> torch.Generator:
    """The source of the draws, on the model's device, as `torch.multinomial` demands; None: a random seed."""
    return torch.Generator(device).manual_seed(seed_for(secrets.randbits(62) if seed is None else seed, "chat"))


def _open(name: str) -> Subject:
    compute = config.load().compute
    if name.startswith("models:/"):
        from pipeline.registry import download

        folder = download(name, config.load())
        return open_subject(folder.name, compute, folder.parent)
    if not (MODELS / name).is_dir():
        names = sorted(path.name for path in MODELS.glob("*") if path.is_dir())
        raise UserError(f"models/{name}: no such model; one of: {', '.join(names) or 'none yet, run `make repro`'}")
    return open_subject(name, compute)


def _answer(
    subject: Subject, line: str, turns: list[tuple[str, str]], sampling: Sampling, generator: torch.Generator
) -> Iterator[str]:
    """The answer to a line after the former turns, in pieces of whole characters."""
    if answers_with_label(subject.task):
        probabilities = predict(subject, [line], 1)[0]
        best = int(probabilities.argmax())
        yield f"{subject.task['labels'][best]} ({float(probabilities[best]):.3f})"
        return
    tokenizer = subject.tokenizer
    stop = {tokenizer.end_of_text}
    template: str | None = subject.task.get("template")
    if template is not None:
        prompt = templates.prompt_ids(tokenizer, template, line, written(turns))
        stop.add(templates.stop_id(tokenizer, template))
    else:
        prompt = [tokenizer.end_of_text, *tokenizer.encode(line)]
    context = subject.model.room()
    keep = max(context // 2, context - sampling.max_tokens)
    waiting, opening = b"", True
    for token in stream(
        subject.model, prompt[-keep:], max_tokens=sampling.max_tokens, temperature=sampling.temperature,
        top_k=sampling.top_k, top_p=sampling.top_p, stop=stop, generator=generator,
    ):  # fmt: skip
        waiting += tokenizer.decode_bytes([token])
        try:
            piece = waiting.decode("utf-8")
        except UnicodeDecodeError:
            continue
        yield templates.answer_text(template, piece) if opening and template else piece
        waiting, opening = b"", False
    yield waiting.decode("utf-8", errors="replace")
