"""The only registry of code: `name: lora` in params.yaml is the file pipeline/tuners/lora.py.

A folder of siblings is the list of choices. `settings_class` reads a sibling's `class Settings` from its source
without importing the sibling, so a whole params.yaml is checked in milliseconds by a process that never loads torch;
`load` imports it.
"""

import ast
import importlib
import traceback
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.config.section import Section
from pipeline.errors import UserError
from pipeline.paths import PACKAGE

ROOT = PACKAGE
# Names that a Settings class may refer to; all other code of the sibling is not executed.
_SECTIONS = ("Section", "PinnedSet")
"""Base classes by which a group of settings is known: those of pipeline/config/section.py."""
_SETTINGS_IMPORTS = {
    "typing",
    "pydantic",
    "pipeline.config.section",
    "pipeline.config.recipe",
    "pipeline.config.params",
    "__future__",
}
_FUNCTIONS = {
    "evaluation": ("measure",),
    "gates": ("profile", "expectations"),
    "data/sources": ("read", "provenance"),
    "data/formats": ("rows",),
}
"""Folder -> the functions of each of its siblings; in all other folders `build`."""


def choices(folder: str) -> list[str]:
    """Sorted names of the variants in `pipeline/<folder>`: modules and packages with settings, no leading _."""
    modules = [path.stem for path in (ROOT / folder).glob("*.py")]
    packages = [
        path.parent.name
        for path in (ROOT / folder).glob("*/__init__.py")
        if "\nclass Settings(" in path.read_text(encoding="utf-8")
    ]
    return sorted(name for name in [*modules, *packages] if not name.startswith("_"))


def load(folder: str, name: str) -> ModuleType:
    """Imports the sibling `pipeline/<folder>/<name>.py`.

    Raises:
        UserError: no such sibling, or one without the function that its folder asks for.
    """
    path = _require(folder, name, where=folder)
    module = importlib.import_module(f"pipeline.{folder.replace('/', '.')}.{name}")
    for function in _FUNCTIONS.get(folder, ("build",)):
        if not callable(getattr(module, function, None)):
            raise UserError(
                f"{path}: it has no function `{function}`; write one as in the other files of pipeline/{folder}"
            )
    return module


@cache
def settings_class(folder: str, name: str, where: str = "") -> type[Section]:
    """The `Settings` class of a sibling, made from its source without importing the sibling.

    Raises:
        UserError: no such sibling (the text names `where` in params.yaml and lists the choices); a file that is no
            Python; no class Settings, or one that uses a name of the file's other code.
    """
    path = _require(folder, name, where or folder)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno}: {error.msg}; correct the file") from error
    body: list[ast.stmt] = []
    for node in tree.body:
        wanted = isinstance(node, ast.ImportFrom) and node.module in _SETTINGS_IMPORTS
        if wanted or (isinstance(node, ast.ClassDef) and _is_section(node)):
            body.append(node)
    namespace: dict[str, object] = {"__name__": f"pipeline.{folder.replace('/', '.')}.{name}"}
    try:
        exec(compile(ast.Module(body, type_ignores=[]), str(path), "exec"), namespace)
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        rule = (
            "; Settings may use only names from typing, pydantic, pipeline.config.section, recipe, params and other "
            "Sections of the file"
        )
        raise UserError(
            f"{path}:{lines[-1] if lines else 1}: {error}{rule if isinstance(error, NameError) else ''}"
        ) from error
    found = namespace.get("Settings")
    if not (isinstance(found, type) and issubclass(found, Section)):
        raise UserError(f"{path}: it has no `class Settings(Section)`; write one, empty where there is nothing to set")
    return found


def example(folder: str, name: str) -> dict[str, Any]:
    """Valid settings of a sibling: the first of every field's `examples`. Raises UserError as `examples`."""
    return examples(folder, name)[0]


def examples(folder: str, name: str) -> list[dict[str, Any]]:
    """Settings with which tests run a sibling, read from its fields: `rank: Positive = Field(examples=[8, 2])`.

    The first entry takes the first example of every field; each further example of a field varies only that field.

    Raises:
        UserError: no such sibling, or one of its fields has no example.
    """
    settings = settings_class(folder, name)
    fields = {key: field.examples for key, field in settings.model_fields.items()}
    if missing := [key for key, values in fields.items() if not values]:
        raise UserError(
            f"pipeline/{folder}/{name}.py: Settings.{missing[0]} has no example value; tests need one: "
            f"{missing[0]}: ... = Field(examples=[...])"
        )
    values = {key: tuple(field or ()) for key, field in fields.items()}
    first = {key: value[0] for key, value in values.items()}
    return [first, *(first | {key: other} for key, value in values.items() for other in value[1:])]


def _is_section(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id in _SECTIONS for base in node.bases)


def _require(folder: str, name: str, where: str) -> Path:
    module, package = ROOT / folder / f"{name}.py", ROOT / folder / name / "__init__.py"
    if name not in choices(folder):
        raise UserError(f"params.yaml: {where}.name is {name!r}; one of: {', '.join(choices(folder))}")
    return module if module.exists() else package
