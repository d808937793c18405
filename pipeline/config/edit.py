"""Edits params.yaml in place: the text of single values is replaced, every other byte stays.

A YAML library would write the whole file anew and change its layout. Here the result is read back before it is
written: it must hold exactly the requested values and be valid.
"""

import difflib
from pathlib import Path
from typing import Any

import yaml

from pipeline import config, files
from pipeline.errors import UserError


def change(path: Path, values: dict[str, Any]) -> str:
    """Sets the values at these dotted paths; returns the change as a unified diff, "" where nothing changes.

    Raises:
        UserError: an unknown path, a value written by alias or merge key, a result that config refuses.
    """
    old = path.read_bytes().decode("utf-8")
    raw = _unshared(yaml.safe_load(old))
    spans = []
    for dotted, value in values.items():
        if _set(raw, dotted, value, path) != value:
            start, end = _span(yaml.compose(old, yaml.SafeLoader), dotted.split("."))
            spans.append((start, end, (" " if start == end else "") + _text(value)))
    new = old
    for start, end, text in sorted(spans, reverse=True):
        new = new[:start] + text + new[end:]
    if _parsed(new) != raw:
        requested = "\n".join(f"  {dotted}: {_text(value)}" for dotted, value in values.items())
        raise UserError(f"{path}: one of these is written by an alias or a merge key; set them by hand:\n{requested}")
    config.check(raw, path.name)
    if new != old:
        files.write_text(path, new)
    names = (f"a/{path.name}", f"b/{path.name}")
    return "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), *names))


def _set(raw: Any, dotted: str, value: Any, path: Path) -> Any:
    """Sets the value in the parsed file; returns the old one."""
    *steps, last = dotted.split(".")
    section = raw
    for step in steps:
        section = section.get(step) if isinstance(section, dict) else None
    if not isinstance(section, dict) or last not in section:
        raise UserError(f"{path}: {dotted} is not there")
    old, section[last] = section[last], value
    return old


def _span(node: Any, steps: list[str]) -> tuple[int, int]:
    """Start and end of the text of the value at these keys; (0, 0) where it has no text of its own."""
    for step in steps:
        nodes = [value for key, value in node.value if key.value == step]
        if not nodes:
            return 0, 0
        node = nodes[-1]
    return node.start_mark.index, _end(node)


def _end(node: Any) -> int:
    """End of a value's text; a block ends with its last value, before the blank lines and comments that follow."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _text(value: Any) -> str:
    """The value on one line, in a form that YAML 1.1 and 1.2 read alike (1.0e-05, not 1e-05)."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _unshared(value: Any) -> Any:
    """A copy without shared objects: a value that is used by alias is one object when read."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
