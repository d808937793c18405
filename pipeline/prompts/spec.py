"""The task record of a model folder, tohum.json: how the model is asked and how it answers.

    {"version": 2, "tasks": [{"name": "instruct", "template": "chat", "max_tokens": 128, "max_prompt_tokens": 96}]}

A merged model has several tasks and answers as the first. Folders of version 1 (one object with the key `objective`)
are read too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline import files
from pipeline.config.section import Positive, Section
from pipeline.errors import UserError

FILE = "tohum.json"
VERSION = 2


class TaskSpec(Section):
    """What a trained model must remember about its task."""

    name: str
    """File of pipeline/tasks."""
    labels: tuple[str, ...] | None = None
    """classify and cloze: the classes, in the order of their scores."""
    template: str | None = None
    """instruct and chat: the prompt template (pipeline/prompts/templates.py)."""
    pattern: str | None = None
    """cloze: the prompt with {text} and {label}."""
    verbalizers: dict[str, str] | None = None
    """cloze: label -> its word."""
    max_tokens: Positive | None = None
    """Longest example in tokens, prompt and answer; None: the model's context."""
    max_prompt_tokens: Positive | None = None
    """Longest prompt in tokens; a longer one is cut. None: three quarters of `max_tokens`."""

    def within(self, room: int) -> "TaskSpec":
        """The spec with both limits filled in, for a model whose context has `room` tokens."""
        most = min(self.max_tokens or room, room)
        prompt = self.max_prompt_tokens or max(1, most * 3 // 4)
        # one token of the context is left for an answer
        return self.model_copy(update={"max_tokens": most, "max_prompt_tokens": min(prompt, max(1, room - 1))})


TEXT = TaskSpec(name="next_token")
"""The task of a folder without tohum.json: open weights, which continue a text."""


def written(specs: Sequence[TaskSpec]) -> dict[str, Any]:
    """The content of tohum.json."""
    return {"version": VERSION, "tasks": [spec.model_dump(mode="json", exclude_none=True) for spec in specs]}


def read(folder: Path) -> tuple[TaskSpec, ...]:
    """The tasks of a model folder, the one that it answers as first.

    Raises:
        UserError: a damaged file, or one of a newer version of this project.
    """
    path = folder / FILE
    return parsed(files.read_json(path), path) if path.is_file() else (TEXT,)


def parsed(content: Any, path: Path) -> tuple[TaskSpec, ...]:
    """The tasks in the content of tohum.json; errors as of `read`."""
    if not isinstance(content, dict):
        raise UserError(f"{path}: found {type(content).__name__}; expected an object with version and tasks")
    if "version" not in content:
        return _version_1(content)
    if content["version"] != VERSION:
        raise UserError(
            f"{path}: version {content['version']!r}; this checkout reads versions 1 and {VERSION}: "
            "use the checkout that wrote the model"
        )
    try:
        specs = tuple(TaskSpec.model_validate(task) for task in content.get("tasks") or ())
    except ValidationError as error:
        raise UserError(f"{path}: {str(error).splitlines()[-2].strip()}; train or fetch the model again") from None
    if not specs:
        raise UserError(f"{path}: names no task; train or fetch the model again")
    return specs


def _version_1(content: Mapping[str, Any]) -> tuple[TaskSpec, ...]:
    """The tasks of {"objective": ..., ...}; a merged model's object has the fields of both of its tasks."""
    first = str(content.get("objective", TEXT.name))
    if first == TEXT.name:
        return (TEXT,)
    limits = {"max_tokens": content.get("max_tokens")}
    specs = []
    if "labels" in content:
        name = "cloze" if "verbalizers" in content else "classify"
        fields = {key: content[key] for key in ("labels", "pattern", "verbalizers") if key in content}
        specs.append(TaskSpec(name=name, **fields, **limits, max_prompt_tokens=content.get("max_tokens")))
    if "template" in content:
        name = first if first in ("instruct", "chat") else "instruct"
        specs.append(TaskSpec(name=name, template=content["template"], **({} if specs else limits)))
    if not specs:
        specs.append(TaskSpec(name=first, **limits))
    return tuple(sorted(specs, key=lambda spec: spec.name != first))
