"""The locks: `make setup` installs every package that training and review import, and no address is in any lock."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from pipeline.paths import CODE as ROOT

LOCKS = (ROOT / "requirements.lock", ROOT / "infra/locks/test.lock", ROOT / "infra/locks/check.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def normal(name: str) -> str:
    """A distribution's name in the form of PyPI: lower case, runs of - _ . are one -."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(path: Path) -> set[str]:
    return {normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", path.read_text(encoding="utf-8"), re.M)}


def declared(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[<>=!~\[; ]", requirement)[0]) for requirement in requirements}


def imported(*folders: str) -> set[str]:
    """Top-level names of the modules outside this project that the folders' files import anywhere."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for name in folders for path in (ROOT / name).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    names = {module.partition(".")[0] for module in modules}
    return names - set(sys.stdlib_module_names) - {"pipeline", "stages", "tests"}


def test_every_import_of_pipeline_and_stages_is_declared_and_installed_by_setup() -> None:
    """Lost otherwise: an import that only `make test` installs fails on the machine of somebody who trains."""
    distributions = packages_distributions()
    # named in the error that its absence gives, with the command that installs it
    optional = {normal(name) for extra in ("open", "nf4") for name in declared(PROJECT["optional-dependencies"][extra])}
    missing = {}
    for module in imported("pipeline", "stages"):
        names = {normal(name) for name in distributions.get(module, [module])}
        if not names & (declared(PROJECT["dependencies"]) | optional):
            missing[module] = names
    assert missing == {}
    assert declared(PROJECT["dependencies"]) - {"torch"} <= locked(LOCKS[0])


def test_every_declared_dependency_is_imported_or_pins_another_package() -> None:
    """An unused dependency is weight in every environment; fastapi is there for its version alone."""
    distributions = packages_distributions()
    used = {normal(name) for module in imported("pipeline", "stages") for name in distributions.get(module, [module])}
    assert declared(PROJECT["dependencies"]) - used - {"fastapi"} == set()


def test_packages_of_tests_and_checks_are_in_their_locks_alone() -> None:
    core, test, check = (locked(path) for path in LOCKS)
    extras = PROJECT["optional-dependencies"]
    assert declared(extras["test"]) <= test | core
    assert declared(extras["check"]) <= check | core
    assert (test | check) & core == set()
    assert not core & {"pytest", "hypothesis", "transformers", "peft", "mypy", "ruff", "import-linter"}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_package_of_a_lock_has_a_hash_and_no_address(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.M)[1:]
    assert entries
    assert [entry.partition("==")[0] for entry in entries if "--hash=sha256:" not in entry] == []
