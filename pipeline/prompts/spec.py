"""The task record of a model folder, tohum.json: how the model is asked and how it answers.

    {"version": 2, "tasks": [{"name": "instruct", "template": "chat", "max_tokens": 128, "max_prompt_tokens": 96}]}

A merged model has several tasks and answers as the first. Folders of version 1 (one object with the key `objective`)
are read too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipeline import files
from pipeline.config.section import Positive, Section, Share
from pipeline.errors import UserError

FILE = "tohum.json"
TEMPLATE_NAMES = ("chat", "alpaca", "model")
"""The templates of pipeline/prompts/templates.py; `model`: the chat template in the folder's tokenizer files."""
VERSION = 2
REWARD = "reward"
"""The task of a reward model, and the name of its one output: a number for an answer to a prompt."""


class TaskSpec(Section):
    """What a trained model must remember about its task."""

    name: str
    """File of pipeline/tasks."""
    labels: tuple[str, ...] | None = None
    """classify, cloze and multi_label: the classes, in the order of their scores."""
    thresholds: dict[str, Share] | None = None
    """Label -> threshold, chosen on validation. classify: the answer is the label whose probability is largest relative
    to its threshold; multi_label: every label whose probability reaches its threshold. None: argmax, or 0.5."""
    decided_by: Literal["f1", "cost"] | None = None
    """What the thresholds were chosen for: the highest macro-averaged F1, or the lowest mean cost."""
    costs: dict[str, dict[str, Annotated[float, Field(ge=0)]]] | None = None
    """classify: true label -> answered label -> cost of that answer; pairs that are not named cost nothing."""
    mean: float | None = None
    """regress: mean of the training targets; the model's output is in standard deviations from it."""
    deviation: Annotated[float, Field(gt=0)] | None = None
    """regress: standard deviation of the training targets."""
    template: str | None = None
    """instruct, chat and reward: the prompt template (pipeline/prompts/templates.py)."""
    pattern: str | None = None
    """cloze: the prompt with {text} and {label}."""
    verbalizers: dict[str, str] | None = None
    """cloze: label -> its word."""
    max_tokens: Positive | None = None
    """Longest example in tokens, prompt and answer; None: the model's context."""
    max_prompt_tokens: Positive | None = None
    """Longest prompt in tokens; a longer one is cut. None: three quarters of `max_tokens`."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of a head's scores, in their order; empty for a task without any."""
        if self.name == REWARD:
            return (REWARD,)
        return ("value",) if self.mean is not None else self.labels or ()

    @property
    def generates(self) -> bool:
        """Whether the answer is generated text; else it is read from scores: labels or a number."""
        return not self.outputs

    def within(self, room: int) -> "TaskSpec":
        """The spec with both limits filled in, for a model whose context has `room` tokens."""
        most = min(self.max_tokens or room, room)
        if not self.generates:  # a label or number takes no room after the prompt, or room that its task has left
            prompt = None if self.max_prompt_tokens is None else min(self.max_prompt_tokens, most)
            return self.model_copy(update={"max_tokens": most, "max_prompt_tokens": prompt})
        prompt = self.max_prompt_tokens or max(1, most * 3 // 4)
        # one token of the context is left for an answer
        return self.model_copy(update={"max_tokens": most, "max_prompt_tokens": min(prompt, max(1, room - 1))})

    @model_validator(mode="after")
    def _has_what_its_task_needs(self) -> "TaskSpec":
        needed = {
            "classify": ("labels", "max_tokens"),
            "multi_label": ("labels", "max_tokens"),
            "regress": ("mean", "deviation", "max_tokens"),
            "cloze": ("labels", "max_tokens", "pattern", "verbalizers"),
            "instruct": ("template",),
            "chat": ("template",),
            REWARD: ("template", "max_tokens", "max_prompt_tokens"),
        }.get(self.name, ())
        if missing := [key for key in needed if getattr(self, key) in (None, "", (), {})]:
            raise ValueError(f"task {self.name} needs {', '.join(missing)}")
        if self.thresholds is not None and set(self.thresholds) != set(self.labels or ()):
            raise ValueError(f"thresholds {self.thresholds} do not name exactly the labels {self.labels}")
        if self.template is not None and self.template not in TEMPLATE_NAMES:
            raise ValueError(f"template is {self.template!r}; one of: {', '.join(TEMPLATE_NAMES)}")
        if self.max_tokens and self.max_prompt_tokens and self.max_prompt_tokens > self.max_tokens:
            raise ValueError(f"max_prompt_tokens {self.max_prompt_tokens} is above max_tokens {self.max_tokens}")
        if self.pattern is not None and (
            self.pattern.count("{text}") != 1
            or not self.pattern.endswith("{label}")
            or not self.verbalizers
            or set(self.verbalizers) != set(self.labels or ())
        ):
            raise ValueError(f"pattern {self.pattern!r} and verbalizers {self.verbalizers} do not fit the labels")
        return self


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
    if content.get("version", 1) not in (1, VERSION):
        raise UserError(
            f"{path}: version {content['version']!r}; this checkout reads versions 1 and {VERSION}: "
            "use the checkout that wrote the model"
        )
    try:
        if content.get("version", 1) == 1:
            return _version_1(content)
        tasks = content.get("tasks") or ()
        if not isinstance(tasks, list | tuple):
            raise UserError(f"{path}: tasks is {tasks!r:.40}; expected a list of tasks")
        specs = tuple(TaskSpec.model_validate(task) for task in tasks)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        what = f"{field}: {first['msg']}" if field else first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {what}; train or fetch the model again") from None
    if not specs:
        raise UserError(f"{path}: names no task; train or fetch the model again")
    return specs


def _version_1(content: Mapping[str, Any]) -> tuple[TaskSpec, ...]:
    """The tasks of {"objective": ..., ...}; a merged model's object has the fields of both of its tasks."""
    first = str(content.get("objective", TEXT.name))
    if first == TEXT.name and not {"labels", "template"} & content.keys():
        return (TEXT,)
    limits = {"max_tokens": content.get("max_tokens")}
    specs = []
    if "labels" in content:
        name = "cloze" if "verbalizers" in content else "classify"
        fields = {key: content[key] for key in ("labels", "pattern", "verbalizers") if key in content}
        # a cloze prompt was cut to leave room for the longest word, which its task knows
        prompt = None if name == "cloze" else content.get("max_tokens")
        specs.append(TaskSpec(name=name, **fields, **limits, max_prompt_tokens=prompt))
    if "template" in content:
        name = first if first in ("instruct", "chat") else "instruct"
        specs.append(TaskSpec(name=name, template=content["template"], **({} if specs else limits)))
    if not specs:
        specs.append(TaskSpec(name=first, **limits))
    return tuple(sorted(specs, key=lambda spec: spec.name != first))
