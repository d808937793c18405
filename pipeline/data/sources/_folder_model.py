"""Answers of a model folder, computed by a process of its own: stage download itself loads no torch."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO

from pipeline import foreign
from pipeline.config.params import ChatModel
from pipeline.data.sources._kept_answers import Answer, Kept
from pipeline.errors import UserError
from pipeline.paths import CODE

_PROGRAM = "pipeline.inference.prompted"
_AT_ONCE = 16


def answers_of_folder(model: ChatModel, prompts: Iterable[str], store: Kept, where: str) -> Iterator[Answer]:
    """The answers to prompts, in their order; the process is started for the first one that is not kept.

    Raises:
        UserError: no such folder, another SHA-256 than pinned, or the process fails.
    """
    folder, prompts, process = require_pinned(model, where), iter(prompts), None
    try:
        while several := list(islice(prompts, _AT_ONCE)):
            kept = {prompt: store.get(prompt) for prompt in several}
            missing = [prompt for prompt, answer in kept.items() if answer is None]
            if missing:
                process = process or _started(folder, model)
                for prompt, text in zip(missing, _asked(process, missing, folder), strict=True):
                    kept[prompt] = Answer(text, str(model.sha256), "stop")
                    store.put(prompt, Answer(text, str(model.sha256), "stop"))
            yield from (answer for prompt in several if (answer := kept[prompt]) is not None)
    finally:
        if process is not None:
            process.kill()
            process.wait()


def require_pinned(model: ChatModel, where: str) -> Path:
    """The folder. Raises UserError where it is missing, or its files have another SHA-256 than pinned."""
    folder = Path(str(model.folder))
    if not folder.is_dir():
        raise UserError(f"{where}.folder is {str(folder)!r}; no such folder; expected a model folder")
    found = foreign.pin(foreign.hashes(folder))
    if model.sha256 is None:
        raise UserError(f"{where}.sha256 is null; a model that makes data is pinned: if you trust it, write {found}")
    if found != model.sha256:
        raise UserError(
            f"{folder}: sha256 of its files is {found}, {where}.sha256 is {model.sha256}; restore the folder, or write "
            "the new hash, which asks it anew"
        )
    return folder


def _started(folder: Path, model: ChatModel) -> "subprocess.Popen[str]":
    settings = {"max_tokens": model.max_tokens, "temperature": model.temperature, "seed": model.seed}
    command = [sys.executable, "-m", _PROGRAM, str(folder.resolve()), json.dumps(settings)]
    return subprocess.Popen(command, cwd=CODE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")


def _asked(process: "subprocess.Popen[str]", prompts: list[str], folder: Path) -> list[str]:
    """The texts of the answers; one line of JSON each way."""
    try:
        _pipe(process.stdin).write(json.dumps(prompts) + "\n")
        _pipe(process.stdin).flush()
        line = _pipe(process.stdout).readline()
    except BrokenPipeError:
        line = ""
    if not line:
        raise UserError(f"{folder}: the model stopped without an answer, for the reason above; expected its answers")
    texts: list[str] = json.loads(line)
    return texts


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "both pipes are open"
    return stream
