"""Base class of groups of settings, field types, and validation errors that name path, value and choices."""

import difflib
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UserError

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
SetName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
"""Name of a set in the metrics."""
Columns = dict[str, str | list[str] | dict[str, str]]
"""Column mapping of a source: our column -> the file's, or a template of several (`"{title}\\n\\n{body}"`); `extra`
holds further columns, a list of names or ours -> the file's."""


class Section(BaseModel):
    """A frozen group of settings; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class PinnedSet(Section):
    """A published set of benchmark items, pinned by its hash."""

    path: str
    """A file, folder or zip archive below inputs/: `inputs/BLiMP.zip`, `inputs/ARC-Easy-Test.jsonl`."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of its content; another one is an error that prints the new hash."""
    language: Annotated[str, Field(pattern="^[a-z]{2,3}$")]
    """ISO 639-1 code."""


def validated(cls: type[BaseModel], fields: Any, where: str, name: str = "params.yaml") -> Any:
    """The section `cls` with these fields; `where` is its path in the file. Raises UserError, a line per problem."""
    try:
        return cls.model_validate(fields)
    except ValidationError as error:
        lines = [_explain(cls, problem, where, name) for problem in error.errors()]
        raise UserError("\n".join(lines)) from None


def _explain(cls: type, problem: Any, where: str, name: str) -> str:
    path = ".".join(str(step) for step in ([where] if where else []) + list(problem["loc"]))
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(cls, problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), fields, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return f"{name}: {path} is not a known key, found {problem['input']!r}{hint}; one of: {', '.join(fields)}"
    if problem["type"] == "missing":
        return f"{name}: {path} is missing; every setting is spelled out"
    place = f"{name}: {path}: " if path else f"{name}: "
    value = problem["input"]
    found = "" if isinstance(value, dict | BaseModel) else f", found {value!r}"
    return f"{place}{problem['msg'].removeprefix('Value error, ')}{found}"


def _fields_at(cls: type, loc: tuple[Any, ...]) -> list[str]:
    """The keys of the section at `loc` below `cls`, as params.yaml spells them."""
    current: Any = cls
    for step in loc:
        fields = getattr(current, "model_fields", None)
        if fields is None:
            continue  # a key of a dict: its value type was already entered
        field = next((f for key, f in fields.items() if step in (key, f.alias)), None)
        if field is None:
            break
        current = next((a for a in (field.annotation, *get_args(field.annotation)) if hasattr(a, "model_fields")), None)
    fields = getattr(current, "model_fields", {})
    return sorted(f.alias or key for key, f in fields.items())
