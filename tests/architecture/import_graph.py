"""What each DVC stage runs, by its imports, against what its `deps` in dvc.yaml say.

DVC does not follow imports: a stage whose deps miss a module goes stale silently. `missing_deps(stage)` names
the files; `python -m tests.architecture.import_graph` prints them for every stage. Imports inside functions
count, and so do the siblings that `plugins.load` takes by the name in params.yaml, and the templates that a
module renders.
"""

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grimp
import yaml

from pipeline.paths import CODE as ROOT

# Code that cannot change what a stage writes: it validates, finds, observes, or writes bytes as given.
EXEMPT = {
    "pipeline",
    "pipeline.entry",
    "pipeline.errors",
    "pipeline.files",
    "pipeline.foreign",
    "pipeline.integrity",
    "pipeline.orchestration",
    "pipeline.orchestration.guard",
    "pipeline.paths",
    "stages",
}
EXEMPT_ROOMS = ("pipeline.config", "pipeline.tracking")
AXES = {
    "objectives": "objective",
    "tuners": "tuner",
    "weighting": "weighting",
    "ordering": "ordering",
    "optimizers": "optimizer",
}


@dataclass(frozen=True)
class Instance:
    """One stage with its `foreach` key filled in: the guard runs `module`, `key` is its last argument."""

    name: str
    module: str
    key: str
    deps: tuple[str, ...]


def instances(stages: dict[str, Any], params: dict[str, Any]) -> dict[str, Instance]:
    """The stages of a parsed dvc.yaml by name, resolved with params as DVC does."""
    found = {}
    for name, stage in stages.items():
        each = stage.get("foreach")
        if each is None:
            found[name] = _instance(name, stage, params)
            continue
        entries = params[each[2:-1]] if isinstance(each, str) else each
        for key, item in entries.items():
            found[f"{name}@{key}"] = _instance(f"{name}@{key}", stage["do"], {**params, "key": key, "item": item})
    return found


def _instance(name: str, stage: dict[str, Any], scope: dict[str, Any]) -> Instance:
    words = _filled(stage["cmd"], scope).split()
    module = words[words.index("pipeline.orchestration.guard") + 1]
    return Instance(name, module, words[-1], tuple(_filled(dep, scope) for dep in stage.get("deps", [])))


def _filled(text: str, scope: dict[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        return str(functools.reduce(lambda inside, key: inside[key], match[1].split("."), scope))

    return re.sub(r"\$\{([\w.]+)\}", value, text)


@functools.cache
def graph() -> grimp.ImportGraph:
    """The imports of the project, those for type checking left out."""
    return grimp.build_graph("pipeline", "stages", cache_dir=None, exclude_type_checking_imports=True)


def closure(module: str) -> set[str]:
    """`module` and the project's modules that it imports, directly or not; exempt ones end the walk."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current in found or current in EXEMPT or current.startswith(EXEMPT_ROOMS):
            continue
        found.add(current)
        waiting += graph().find_modules_directly_imported_by(current)
        waiting += _packages(current)
    return found


@functools.cache
def _with_externals() -> grimp.ImportGraph:
    return grimp.build_graph("pipeline", "stages", cache_dir=None, include_external_packages=True)


def external(module: str) -> set[str]:
    """The top-level packages that a module may load, in functions too, through exempt modules as well."""
    everything = _with_externals()
    reached = everything.find_upstream_modules(module)
    return {name for name in reached if everything.is_module_squashed(name)}


def _packages(module: str) -> Iterator[str]:
    """The packages that Python runs on the way to a module, where they hold code."""
    parent = module.rpartition(".")[0]
    while parent:
        if len(ast.parse(_path(parent).read_text(encoding="utf-8")).body) > 1:
            yield parent
        parent = parent.rpartition(".")[0]


def _path(module: str) -> Path:
    base = ROOT / module.replace(".", "/")
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def siblings(instance: Instance, params: dict[str, Any]) -> set[str]:
    """The modules that this stage takes by their name in params.yaml."""
    stage = instance.module.removeprefix("stages.")
    names: dict[str, list[str]] = {}
    if stage == "download":
        names["data.sources"] = [source["name"] for source in params["download"]["sources"].values()]
        names["data.formats"] = [p.stem for p in (ROOT / "pipeline/data/formats").glob("[!_]*.py")]
    elif stage in ("pretrain", "finetune"):
        recipe = params["pretrain"] if stage == "pretrain" else params["finetune"][instance.key]
        names |= {folder: [recipe[axis]["name"]] for folder, axis in AXES.items()}
    elif stage == "merge":
        names["merging"] = [params["merge"][instance.key]["rule"]["name"]]
    elif stage == "evaluate":
        names["evaluation"] = list(params["evaluations"][instance.key]["measures"])
    elif stage == "validate":
        names["gates"] = ["model" if instance.name.startswith("validate-model") else instance.key]
    return {f"pipeline.{folder}.{name}" for folder, several in names.items() for name in several}


def needed(instance: Instance, params: dict[str, Any]) -> set[str]:
    """The files, relative to the project's root, whose change can change what the stage writes."""
    modules = closure(instance.module)
    for sibling in siblings(instance, params):
        modules |= closure(sibling)
    paths = {module: _path(module) for module in modules}
    files = {path.relative_to(ROOT).as_posix() for path in paths.values()}
    for path in paths.values():
        for template in re.findall(r'get_template\("([\w.]+)"\)', path.read_text(encoding="utf-8")):
            files.add(f"pipeline/reporting/pages/{template}")
    return files


def uncovered(instance: Instance, params: dict[str, Any]) -> list[str]:
    """The needed files that no dep of the stage names; a folder covers what is in it."""
    return sorted(
        file
        for file in needed(instance, params)
        if not any(file == dep or file.startswith(dep.rstrip("/") + "/") for dep in instance.deps)
    )


def read() -> tuple[dict[str, Instance], dict[str, Any]]:
    """The project's own stages and params, with the merges of a profile, for the default has none."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["merge"] = yaml.safe_load((ROOT / "infra/profiles/merged.yaml").read_text(encoding="utf-8"))["merge"]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return instances(stages, params), params


def missing_deps(stage: str) -> list[str]:
    """The files that a stage of dvc.yaml runs and does not name in its deps."""
    found, params = read()
    return uncovered(found[stage], params)


if __name__ == "__main__":
    for one in read()[0]:
        lines = missing_deps(one)
        print(f"{one}: {'complete' if not lines else ''}", *lines, sep="\n  " if lines else "")
