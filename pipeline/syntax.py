"""Summaries of source files for closures: fingerprint of the syntax, imports, parts loaded by name.

A fingerprint is the SHA-256 of a file's syntax tree without comments, docstrings and layout, in a form that is equal in
every Python version, so that machines with different ones agree. Offers `read` (a file, parsed once), `parsed` (a
syntax tree) and `keep` (for the processes that come next).
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import UserError
from pipeline.paths import CODE_CACHE, PACKAGE

_PLUGINS = "pipeline.config.plugins"
AXES = "AXES"
"""`plugins.load(AXES[...], ...)` takes a part on any axis of a recipe."""


@dataclass(frozen=True)
class Source:
    """Summary of one source file."""

    fingerprint: str
    imports: tuple[str, ...] = ()
    """Dotted names; one may be a name inside a module."""
    loads: tuple[str, ...] = ()
    """Folders from which it takes modules by name; AXES for the axes of a recipe."""
    words: tuple[str, ...] = ()
    """Strings in it that may be the names of data files."""


_read: dict[str, Source] = {}
"""SHA-256 of a file's bytes -> its summary, from this process or from the last run of stage `code`."""


def read(path: Path) -> Source:
    """The summary of one source file; a file that was read before is not parsed again."""
    content = path.read_bytes()
    key = hashlib.sha256(content).hexdigest()
    if not _read:
        _read.update(_cached())
    if key not in _read:
        try:
            tree = ast.parse(content, str(path))
        except SyntaxError as error:
            raise UserError(f"{path}:{error.lineno}: {error.msg}; fix the file, then run again") from None
        except ValueError as error:  # a NUL byte
            raise UserError(f"{path}: no Python source: {error}; fix the file, then run again") from None
        _read[key] = parsed(tree, str(path))
    return _read[key]


def parsed(tree: ast.Module, path: str = "") -> Source:
    """The summary of one syntax tree."""
    text: list[str] = []
    _write(tree, text)
    imports, loads, words = [], [], []
    for node in _nodes(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
            _require_plain(path, node, [alias.name for alias in node.names if alias.name == _PLUGINS])
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise UserError(f"{path}:{node.lineno}: a relative import; write the module's full name")
            imports += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            named = [alias for alias in node.names if f"{node.module}.{alias.name}" == _PLUGINS and alias.asname]
            loads_itself = [alias for alias in node.names if f"{node.module}.{alias.name}" == f"{_PLUGINS}.load"]
            _require_plain(path, node, [*named, *loads_itself])
        elif isinstance(node, ast.Call) and _is_load(node.func):
            loads.append(_folder(node, path))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.-]+", node.value):
            words += [node.value] if "." in node.value else []
    ours = {name for name in imports if name.partition(".")[0] in (PACKAGE.name, "stages")}
    fingerprint = hashlib.sha256("\0".join(text).encode()).hexdigest()[:32]
    return Source(fingerprint, *(tuple(sorted(set(names))) for names in (ours, loads, words)))


def _require_plain(path: str, node: ast.Import | ast.ImportFrom, other_names: list[Any]) -> None:
    """Raises UserError where `plugins.load` would go by another name, by which its calls are not found."""
    if other_names:
        raise UserError(
            f"{path}:{node.lineno}: plugins under another name; write `from pipeline.config import plugins` and call "
            "`plugins.load`, which is how a stage's code is found"
        )


def _is_load(function: ast.expr) -> bool:
    """Whether `plugins.load` is called."""
    plugins = isinstance(function, ast.Attribute) and function.attr == "load" and function.value
    return isinstance(plugins, ast.Name) and plugins.id == "plugins"


def _folder(call: ast.Call, path: str) -> str:
    """The folder in a call of `plugins.load`."""
    first = call.args[0] if call.args else None
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value
    if isinstance(first, ast.Subscript) and isinstance(first.value, ast.Name) and first.value.id == AXES:
        return AXES
    raise UserError(f'{path}:{call.lineno}: plugins.load("folder", ...) or plugins.load(AXES[axis], ...) expected')


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those below `if TYPE_CHECKING:`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if _is_for_types(node):
            waiting += node.orelse  # type: ignore[attr-defined]  # an If
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def _is_for_types(node: Any) -> bool:
    """Whether it is `if TYPE_CHECKING:`, which never runs."""
    test = node.test if isinstance(node, ast.If) else None
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


_SKIPPED = {"ctx", "kind", "type_comment", "type_ignores"}
_STATEMENTS = {"body", "orelse", "finalbody"}


def _write(node: ast.AST, text: list[str]) -> None:
    """A syntax tree as text that is equal in every Python version: fields that are empty are left out.

    Statements that do nothing (docstrings, `pass`) and code for type checking only are left out too. Versions split
    the texts of an f-string differently, so neighbours are joined.
    """
    if isinstance(node, ast.Constant):
        text.append(f"={node.value!a}")
        return
    text.append(type(node).__name__)
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list) and field in _STATEMENTS:
            value = list(_running(value))
        if value is None or value == [] or field in _SKIPPED:
            continue
        text.append(f".{field}")
        if isinstance(value, ast.AST):
            _write(value, text)
        elif isinstance(value, list):
            if isinstance(node, ast.JoinedStr):
                value = list(_joined(value))
            text.append("[")
            for item in value:
                if isinstance(item, ast.AST):
                    _write(item, text)
                else:  # a keyword without a default, `**` in a dictionary: not the constant None
                    text.append("-" if item is None else f"={item!a}")
            text.append("]")
        else:
            text.append(f"={value!a}")
    text.append(";")


def _running(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in statements:
        if isinstance(statement, ast.Pass):
            continue
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        if _is_for_types(statement):
            yield from _running(statement.orelse)  # type: ignore[attr-defined]  # an If
            continue
        yield statement


def _joined(values: Iterable[ast.expr]) -> Iterator[ast.expr]:
    """The values of an f-string, neighbouring texts as one."""
    before = ""
    for value in values:
        if isinstance(value, ast.Constant):
            before += str(value.value)
            continue
        if before:
            yield ast.Constant(before)
        before = ""
        yield value
    if before:
        yield ast.Constant(before)


def _version() -> str:
    """Summaries by another version of this file are not used."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _cached() -> dict[str, Source]:
    """The summaries by the last run of stage `code`; empty where its file is missing, damaged or another version's."""
    try:
        head, body = CODE_CACHE.read_text(encoding="utf-8").split("\n", 1)
        if head != f"{_version()} {hashlib.sha256(body.encode()).hexdigest()}":
            return {}
        return {
            key: Source(entry.pop("fingerprint"), **{name: tuple(values) for name, values in entry.items()})
            for key, entry in json.loads(body).items()
        }
    except (OSError, ValueError):
        return {}


def keep(paths: Iterable[Path]) -> None:
    """Saves the summaries of these files, so that the stages that run next need not parse them again."""
    keys = sorted({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths})
    body = json.dumps({key: asdict(_read[key]) for key in keys if key in _read})
    files.write_text(CODE_CACHE, f"{_version()} {hashlib.sha256(body.encode()).hexdigest()}\n{body}")
