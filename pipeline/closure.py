"""The code that can change a result: import closures of modules and parts, found by reading the sources.

Used by DVC, the tests, and the keys of resumed trainings, studies and kept measures. Offers `closure`
(every file that a module can import), `code` (path -> fingerprint of the files that can change its results),
`stages` (the same for every stage of dvc.yaml, with the parts that params.yaml names) and `digest` (one hash of these).

The fingerprint of a file is that of its syntax tree (pipeline/syntax.py), so that a reworded docstring makes nothing
stale. Imports inside functions count, those for type checking do not. A module taken by name (`plugins.load(folder,
name)`) is found by the name that params.yaml gives for that folder. A data file of the package (a page's template) that
the code names by its file name counts by its bytes. Nothing is imported to find out.
"""

import functools
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import syntax
from pipeline.errors import UserError
from pipeline.paths import CODE, CODE_OF_STAGES, PACKAGE
from pipeline.syntax import AXES, Source

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.recipe import Recipe

EXEMPT = {
    "pipeline.closure": "reads code and computes nothing else",
    "pipeline.cli": "commands for people; no stage runs one",
    "pipeline.config": "validates params.yaml and changes no value; DVC compares the values themselves",
    "pipeline.entry": "starts a stage and words its errors",
    "pipeline.errors": "the type of errors that a user can fix",
    "pipeline.orchestration": "starts and ends processes",
    "pipeline.paths": "defines paths of files",
    "pipeline.syntax": "reads code and computes nothing else",
    "pipeline.tracking": "observes a run and its surroundings",
}
"""Modules and packages whose code cannot change a stage's outs, with the reason; the walk along imports ends there."""
Code = dict[str, str]
"""Path below the project's root -> fingerprint of the file."""
Parts = Mapping[str, Collection[str]]
"""Folder below pipeline/ -> names of the modules that are taken from it."""


def closure(module: str, root: Path = CODE) -> dict[str, Path]:
    """Module name -> file: `module`, its imports from this project, and the packages on the way."""
    return {name: path for name, path, _ in _walk([module], None, _Tree(root))}


def code(modules: Iterable[str], parts: Parts, root: Path = CODE) -> Code:
    """The files that can change the results of these modules.

    Args:
        modules: where the walk along imports starts.
        parts: the names that are taken by `plugins.load`, by folder.
        root: the folder that holds the package `pipeline`.

    Raises:
        UserError: a file that is no Python; a part that has no file; a call of `plugins.load` for a folder that
            `parts` does not have.
    """
    return _code(modules, parts, _Tree(root))


def _code(modules: Iterable[str], parts: Parts, tree: "_Tree") -> Code:
    found: Code = {}
    named: list[str] = []
    for _, path, source in _walk(modules, parts, tree):
        found[path.relative_to(tree.root).as_posix()] = source.fingerprint
        named += source.words
    seen: set[str] = set()
    while named:
        name = named.pop()
        if name in seen:
            continue
        seen.add(name)
        for path in tree.data_files.get(name, []):
            content = path.read_bytes()
            found[path.relative_to(tree.root).as_posix()] = hashlib.sha256(content).hexdigest()[:32]
            named += re.findall(r"""["']([^"']+)["']""", content.decode("utf-8", "replace"))
    return dict(sorted(found.items()))


def digest(found: Mapping[str, str]) -> str:
    """One hash of a `Code`; hexadecimal."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:32]


def rendered(found: Code) -> str:
    """A stage's file in data/code."""
    return json.dumps(found, sort_keys=True, indent=1) + "\n"


def stages(params: "Params", graph: dict[str, Any], root: Path = CODE) -> dict[str, Code]:
    """Stage (`finetune@spam-lora`) -> its code, for every stage except `code`.

    Args:
        params: names the keys of every `foreach`, and the parts.
        graph: dvc.yaml, parsed.
        root: the folder that holds the package `pipeline`.
    """
    found: dict[str, Code] = {}
    tree = _Tree(root)
    known: dict[str, Code] = {}  # recipes of one method differ only in their seed
    for name, module in stage_modules(params, graph).items():
        if module != "stages.code":
            parts = stage_parts(name, params)
            key = json.dumps([module, {folder: sorted(names) for folder, names in parts.items()}])
            if key not in known:
                known[key] = _code([module], parts, tree)
            found[name] = known[key] | _asked(name, params)
    return found


def stage_modules(params: "Params", graph: dict[str, Any]) -> dict[str, str]:
    """Stage with its `foreach` key filled in -> the module that its command runs."""
    found: dict[str, str] = {}
    for name, entry in graph["stages"].items():
        module = next(word for word in entry.get("do", entry)["cmd"].split() if word.startswith("stages."))
        if "foreach" not in entry:
            found[name] = module
            continue
        keys = entry["foreach"]
        keys = getattr(params, keys.strip("${} ")) if isinstance(keys, str) else keys
        found |= {f"{name}@{key}": module for key in keys}
    return found


def require_current(stage: str, params: "Params", root: Path = CODE) -> None:
    """Compares a stage's code with its file in data/code, on which DVC's comparison of the stage rests.

    Without the check an edit made while `dvc repro` runs would be locked as the code before it. A stage without a file
    there is not compared: it was started by hand, before stage `code` ever ran.

    Raises:
        UserError: the code differs; names the files.
    """
    path = CODE_OF_STAGES / f"{stage}.json"
    if stage == "code" or not path.is_file():
        return
    now = code([_module(stage)], stage_parts(stage, params), root) | _asked(stage, params)
    text = path.read_text(encoding="utf-8", errors="replace")
    if text == rendered(now):
        return
    try:
        before = dict(json.loads(text))
    except (ValueError, TypeError):
        raise UserError(f"{path}: it is damaged; run `dvc repro --force --single-item code`, then again") from None
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    raise UserError(
        f"{stage}: {', '.join(changed[:3])}{' and others' if len(changed) > 3 else ''} changed since stage code ran; "
        "run `dvc repro` again, which compares anew"
    )


def _module(stage: str) -> str:
    """The module that a stage of dvc.yaml runs; `stage_modules` reads it from there."""
    kind = stage.partition("@")[0]
    return "stages.validate" if kind == "validate-model" else f"stages.{kind}"


def stage_parts(stage: str, params: "Params") -> Parts:
    """The modules that a stage loads by the names in params.yaml."""
    kind, _, key = stage.partition("@")
    if kind == "download":
        return _source_parts(params)
    if kind in ("pretrain", "finetune"):
        return recipe_parts(params.pretrain if kind == "pretrain" else params.finetune[key])
    if kind == "merge":
        return {"merging": [params.merge[key].rule.name]}
    if kind == "evaluate":
        measures = params.evaluations[key].measures
        models = [key, *(fields["parent"] for fields in measures.values() if fields.get("parent"))]
        tasks = sorted({name for model in models for name in task_names(model, params)})
        return {"evaluation": list(measures), "tasks": tasks, "judges": judge_names(measures.values())}
    if kind in ("validate", "validate-model"):
        # the script judges both, each stage takes one
        return {"gates": [key if kind == "validate" else "model"]}
    return {}


def recipe_parts(*recipes: "Recipe") -> Parts:
    """The modules of all axes of these recipes."""
    from pipeline.config import recipe as settings  # pydantic: not for the packing of a registered version

    return {
        folder: sorted({getattr(recipe, axis).name for recipe in recipes}) for axis, folder in settings.AXES.items()
    }


def _asked(stage: str, params: "Params") -> Code:
    """The tasks that the samples gate asks which records make an example, beside its code.

    DVC's `params` cannot name one sub-key of every recipe, and with all of `finetune` a changed learning rate would run
    the gate again.
    """
    if stage != "validate@samples":
        return {}
    from pipeline.config import plugins

    forms = {name: getattr(plugins.settings_class("tasks", name), "form", None) for name in plugins.choices("tasks")}
    asked = {
        f"{recipe.data} {recipe.task.model_dump_json()} {forms[recipe.task.name]}"
        for recipe in params.finetune.values()
    }
    return {"params.yaml: finetune.*.task": hashlib.sha256("\n".join(sorted(asked)).encode()).hexdigest()[:32]}


def task_names(model: str, params: "Params") -> list[str]:
    """The tasks that the folder of a model of the graph may name."""
    if model in params.merge:
        merge = params.merge[model]
        return sorted({*task_names(merge.first, params), *task_names(merge.second, params)})
    from pipeline.config import plugins

    task = (params.pretrain if model == "base" else params.finetune[model]).task.name
    named = getattr(plugins.settings_class("tasks", task), "answers_as", task)  # that of tohum.json
    return sorted({task, named})


def judge_names(measures: Iterable[Mapping[str, Any]]) -> list[str]:
    """The judges that the settings of measures name."""
    parts = (fields.get(key) for fields in measures for key in ("judge", "truth"))
    return sorted({part["name"] for part in parts if part})


def _source_parts(params: "Params") -> Parts:
    """The modules of all sources, and of the file formats that they read."""
    sources = params.download.sources
    settings = [source.settings("data/sources", f"download.sources.{name}") for name, source in sources.items()]
    return {
        "data/sources": sorted({source.name for source in sources.values()}),
        "data/formats": sorted({one.format.name for one in settings if hasattr(one, "format")}),
        "data/augment": sorted({part.name for one in settings for part in getattr(one, "augment", [])}),
    }


class _Tree:
    """The files of the project below `root`, as they are at one moment: each is looked for and read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sources: dict[str, tuple[Path, Source] | None] = {}

    def source(self, module: str) -> tuple[Path, Source] | None:
        """The module's file with its summary; None for a name inside a module, or another package."""
        if module not in self._sources:
            path = _file(module, self.root)
            self._sources[module] = None if path is None else (path, syntax.read(path))
        return self._sources[module]

    @functools.cached_property
    def data_files(self) -> dict[str, list[Path]]:
        """File name -> paths of the package's files that are no code."""
        files: dict[str, list[Path]] = {}
        for path in sorted((self.root / PACKAGE.name).rglob("*")):
            if path.suffix not in (".py", ".pyc", ".md", ".tmp") and path.is_file():
                files.setdefault(path.name, []).append(path)
        return files


def _walk(modules: Iterable[str], parts: Parts | None, tree: _Tree) -> Iterator[tuple[str, Path, Source]]:
    """The modules reached along imports, each with its packages; without `parts` exempt ones and no named ones."""
    waiting, reached = list(modules), set()
    while waiting:
        name = waiting.pop()
        if name in reached or (parts is not None and _is_exempt(name)) or (found := tree.source(name)) is None:
            continue
        reached.add(name)
        path, source = found
        yield name, path, source
        waiting += [name.rpartition(".")[0], *source.imports]
        for folder in source.loads if parts is not None else ():
            waiting += _named(folder, parts or {}, path, tree)


def _named(folder: str, parts: Parts, path: Path, tree: _Tree) -> Iterator[str]:
    """The modules that a call of `plugins.load` for this folder takes."""
    if folder == AXES:
        from pipeline.config import recipe as settings

        folders = list(settings.AXES.values())
    else:
        folders = [folder]
    for one in folders:
        if one not in parts:
            raise UserError(
                f"{path}: it calls plugins.load for {one}, and pipeline/closure.py (stage_parts) has no names of that "
                "folder for this stage; add them there, or import the module"
            )
        for name in parts[one]:
            module = f"pipeline.{one.replace('/', '.')}.{name}"
            if tree.source(module) is None:
                raise UserError(f"params.yaml names {name!r}, expected a file pipeline/{one}/{name}.py; correct either")
            yield module


def _is_exempt(module: str) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in EXEMPT)


def _file(module: str, root: Path) -> Path | None:
    """The file of a module of this project; None for a name inside a module, or another package."""
    package = module.partition(".")[0]
    if package not in (PACKAGE.name, "stages"):
        return None
    base = root.joinpath(*module.split("."))
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)
