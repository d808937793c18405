"""Docstrings read from source files by their syntax tree: no module is imported, so no torch is loaded."""

import ast
import re
from functools import cache
from pathlib import Path

from pipeline.errors import UserError
from pipeline.paths import CODE

_ENDS = re.compile(r"[.!?][\"')\]]*(?=\s+[A-Z`\"(\[]|\s*$)")
_ABBREVIATIONS = ("al.", "e.g.", "i.e.", "vs.", "cf.", "eq.", "sec.", "fig.", "no.", "dr.")


def first_sentence(text: str) -> str:
    """The first sentence of a text on one line, without its full stop.

    A full stop inside parentheses or backticks, or that of an abbreviation ("Radford et al. Section 3"), ends none.
    """
    line = " ".join(text.strip().split("\n\n")[0].split())
    for end in _ENDS.finditer(line):
        sentence = line[: end.end()]
        balanced = sentence.count("(") <= sentence.count(")") and sentence.count("`") % 2 == 0
        if balanced and not sentence.lower().endswith(_ABBREVIATIONS):
            return sentence.removesuffix(".")
    return line.removesuffix(".").removesuffix(":")


def source_file(root: Path, module: str) -> Path:
    """The file of a module, or of a package by its `__init__.py`, below the folder that holds `pipeline`."""
    stem = root / module.replace(".", "/")
    package = stem / "__init__.py"
    return package if package.is_file() else stem.with_name(f"{stem.name}.py")


def module_docstring(path: Path) -> str:
    """The docstring of a source file. Raises UserError where there is none."""
    text = ast.get_docstring(_tree(path))
    if text is None:
        raise UserError(f"{path}: no docstring, expected one whose first sentence states the purpose of the file")
    return text


def field_docstrings(section: type) -> dict[str, str]:
    """The string below each field of a class, by field name, on one line; fields of its bases included."""
    sentences: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if (definition := _definition(cls)) is None:
            continue
        for statement, after in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                sentences[statement.target.id] = " ".join(after.value.value.split())
    return sentences


def _definition(cls: type) -> ast.ClassDef | None:
    """The class statement in the source file of the module that the class names; None outside of this code."""
    if not cls.__module__.startswith("pipeline."):
        return None
    path = source_file(CODE, cls.__module__)
    classes = (node for node in _tree(path).body if isinstance(node, ast.ClassDef))
    return next((node for node in classes if node.name == cls.__name__), None)


def _tree(path: Path) -> ast.Module:
    return _parsed(path.read_text(encoding="utf-8"), str(path))


@cache
def _parsed(text: str, name: str) -> ast.Module:
    return ast.parse(text, name)
