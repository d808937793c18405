"""The import closure of a module: the files of this package that it can run, found by reading their imports.

Imports inside functions count, those for type checking do not, and nothing is imported to find out. Modules that are
taken by name at run time (`plugins.load`) are not seen.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from pipeline.paths import PACKAGE


def closure(module: str) -> dict[str, Path]:
    """Module name -> file: `module` of this package, what it imports from it, and the packages on the way."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if name in found or path is None:
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0], *_imports(path, name)]
    return dict(sorted(found.items()))


def _file(module: str) -> Path | None:
    """The file of a module of this package; None for a name inside a module, or another package."""
    package, _, rest = module.partition(".")
    if package != PACKAGE.name:
        return None
    base = PACKAGE.joinpath(*rest.split(".")) if rest else PACKAGE
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


def _imports(path: Path, module: str) -> Iterator[str]:
    for node in _nodes(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; this package imports by full names"
            source = str(node.module)
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those below `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from (inner for part in node.orelse for inner in [part, *_nodes(part)])
            continue
        yield node
        yield from _nodes(node)
