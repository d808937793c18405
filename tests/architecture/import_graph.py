"""The project's imports as grimp sees them: a second opinion on pipeline/closure.py, and on what a stage loads."""

import functools
from typing import Any

import grimp
import yaml

from pipeline import closure, config
from pipeline.config import profiles
from pipeline.config.params import Params
from pipeline.paths import CODE as ROOT

PROFILES = profiles.available()


@functools.cache
def params_of(profile: str) -> Params:
    """The params of a profile, checked."""
    return config.check(yaml.safe_load(profiles.rendered([profile])), profile)


@functools.cache
def dvc_yaml() -> dict[str, Any]:
    """dvc.yaml, parsed."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return found


@functools.cache
def graph() -> grimp.ImportGraph:
    """The imports of the project, those for type checking left out."""
    return grimp.build_graph("pipeline", "stages", cache_dir=None, exclude_type_checking_imports=True)


@functools.cache
def reached(module: str) -> frozenset[str]:
    """`module` and all of the project that it imports, directly or not, packages on the way; exempt modules end it."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        exempt = any(current == one or current.startswith(f"{one}.") for one in closure.EXEMPT)
        if current in found or exempt or not current:
            continue
        found.add(current)
        waiting += [*graph().find_modules_directly_imported_by(current), current.rpartition(".")[0]]
    return frozenset(found)


@functools.cache
def path_of(module: str) -> str:
    """The module's file, relative to the project's root."""
    base = ROOT / module.replace(".", "/")
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return path.relative_to(ROOT).as_posix()


@functools.cache
def _with_externals() -> grimp.ImportGraph:
    return grimp.build_graph("pipeline", "stages", cache_dir=None, include_external_packages=True)


def external(module: str) -> set[str]:
    """The top-level packages that a module may load, in functions too, through exempt modules as well."""
    everything = _with_externals()
    return {name for name in everything.find_upstream_modules(module) if everything.is_module_squashed(name)}
