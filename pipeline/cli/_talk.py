"""Talks to a model of the graph or the registry in the terminal, the answer appearing as it is made.

`python -m pipeline.cli.chat chat-lora`, or `models:/tohum-chat-lora@candidate` from the registry. An instruction model
keeps to its template; a language model continues your text; a classifier names the label.
"""

import argparse
import secrets
import sys
from collections.abc import Iterator

import torch

from pipeline import config
from pipeline.config.recipe import seed_for
from pipeline.data import templates
from pipeline.data.conversations import written
from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.evaluation import Subject, open_subject
from pipeline.evaluation.classification import predict
from pipeline.inference.generation import stream
from pipeline.inference.labels import answers_with_label
from pipeline.paths import MODELS


def main() -> None:
    """Reads lines until end of file or /quit."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.cli.chat", description=__doc__)
    parser.add_argument("model", help="a folder below models/, or models:/<name>@<alias> of the registry")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest answer")
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=None, help="repeats an answer; none: another one each time")
    options = parser.parse_args()
    subject = _open(options.model)
    print(f"{subject.name}: {subject.task.get('objective', 'next_token')}. End with Ctrl-D.", file=sys.stderr)
    generator = torch.Generator().manual_seed(seed_for(options.seed or secrets.randbits(62), "chat"))
    turns: list[tuple[str, str]] = []
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        said = ""
        for piece in _answer(subject, line, turns, options, generator):
            print(piece, end="", flush=True)
            said += piece
        print()
        if subject.task.get("objective") == "chat" and said.strip():  # others never saw a second turn
            turns.append((line, said))


def _open(name: str) -> Subject:
    compute = config.load().compute
    if name.startswith("models:/"):
        from pipeline.registry import download

        folder = download(name, config.load())
        return open_subject(folder.name, compute, folder.parent)
    if not (MODELS / name).is_dir():
        found = sorted(p.name for p in MODELS.glob("*") if p.is_dir())
        raise UserError(f"models/{name}: no such model; one of: {', '.join(found) or 'none yet, run `make repro`'}")
    return open_subject(name, compute)


def _answer(
    subject: Subject, line: str, turns: list[tuple[str, str]], options: argparse.Namespace, generator: torch.Generator
) -> Iterator[str]:
    """The answer in pieces, after what was said before; a piece ends only where its bytes are whole characters."""
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
    keep = max(context // 2, context - options.max_tokens)
    waiting, opening = b"", True
    for token in stream(
        subject.model, prompt[-keep:], max_tokens=options.max_tokens, temperature=options.temperature,
        top_k=options.top_k, top_p=options.top_p, stop=stop, generator=generator,
    ):  # fmt: skip
        waiting += tokenizer.decode_bytes([token])
        try:
            piece = waiting.decode("utf-8")
        except UnicodeDecodeError:
            continue
        yield templates.answer_text(template, piece) if opening and template else piece
        waiting, opening = b"", False
    yield waiting.decode("utf-8", errors="replace")


if __name__ == "__main__":
    entry(main)
