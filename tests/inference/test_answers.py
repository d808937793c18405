"""answers.py: a streamed answer has the text of the whole one."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import tokenizer as vocabularies
from pipeline.inference import answers
from pipeline.inference.answers import Sampling
from pipeline.prompts.request import Request
from pipeline.prompts.spec import TaskSpec
from pipeline.tasks import Task, open_task
from pipeline.tokenizer import Tokenizer
from tests.fakes import ByteTokenizer
from tests.prompts import chat_templates

QWEN3 = "<think>\n\n</think>\n\n"


def task_of(template: str, folder: Path) -> Task:
    """The task of a chat model; with template `model` on a vocabulary as of Qwen3, whose answers open with QWEN3."""
    spec = TaskSpec(name="chat", template=template, max_tokens=64, max_prompt_tokens=48)
    if template != "model":
        return open_task(spec, ByteTokenizer())  # type: ignore[arg-type]
    vocabularies.adopt(chat_templates.folder(chat_templates.STYLES["qwen3"], folder / "theirs")).save(folder / "words")
    return open_task(spec, Tokenizer.load(folder / "words"))


def ids_of(task: Task, text: str) -> list[int]:
    """Ids of generated text, with `<think>` and `</think>` as their tokens where the vocabulary has them."""
    template = task.tokenizer.chat_template
    if template is None:
        return task.tokenizer.encode(text)
    ids: list[int] = []
    for piece in re.split("(</?think>)", text):
        marker = template.markers.get(piece)
        ids += task.tokenizer.encode(piece) if marker is None else [marker.number]
    return ids


@pytest.mark.parametrize(
    ("template", "generated", "expected"),
    [
        ("model", f"{QWEN3}Ayşe geldi.", "Ayşe geldi."),
        ("model", QWEN3, ""),
        ("model", "<think>\n\n", "<think>\n\n"),
        ("model", "<think>\nBir düşüneyim.\n</think>\n\nAyşe", "<think>\nBir düşüneyim.\n</think>\n\nAyşe"),
        ("model", "Ayşe geldi.", "Ayşe geldi."),
        ("model", "", ""),
        ("chat", " Ayşe", "Ayşe"),
        ("chat", "  Ayşe", " Ayşe"),
        ("chat", "Ayşe", "Ayşe"),
        ("alpaca", " Ayşe", " Ayşe"),
    ],
)
def test_stream_answer_gives_the_text_of_answer(
    template: str, generated: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: the prefix of several tokens is shown in chat and left out everywhere else."""
    task = task_of(template, tmp_path)
    ids = ids_of(task, generated)
    monkeypatch.setattr(answers, "generate", lambda *_, **__: [ids])
    monkeypatch.setattr(answers, "stream", lambda *_, **__: iter(ids))
    model: Any = None
    request, sampling = Request("Kim?"), Sampling(64)
    assert answers.answer(model, task, [request], sampling) == [expected]
    pieces = list(answers.stream_answer(model, task, request, sampling, torch.Generator()))
    assert "".join(pieces) == expected
