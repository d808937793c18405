"""params.yaml changed in place: single values are replaced, every other byte stays, comments and layout with it.

A YAML library would write the whole file anew, and lose a `null` here and a line break there. This replaces the text of
the values alone, then reads the result back: it must say exactly what was asked, and be valid, or nothing is written.
"""

import difflib
from pathlib import Path
from typing import Any

import yaml

from pipeline import config, files
from pipeline.errors import UserError


def change(path: Path, values: dict[str, Any]) -> str:
    """Sets the values at these dotted paths and returns the change as a unified diff; "" where all stood already.

    Raises:
        UserError: a path that is not there, a value written by alias or merge key, a result that config refuses.
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
        asked = "\n".join(f"  {dotted}: {_text(value)}" for dotted, value in values.items())
        raise UserError(f"{path}: one of these is written by an alias or a merge key; set them by hand:\n{asked}")
    config.check(raw, path.name)
    if new != old:
        files.write_text(path, new)
    names = (f"a/{path.name}", f"b/{path.name}")
    return "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), *names))


def _set(raw: Any, dotted: str, value: Any, path: Path) -> Any:
    """Sets the value in the parsed file; returns the one that was there."""
    *steps, last = dotted.split(".")
    place = raw
    for step in steps:
        place = place.get(step) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        raise UserError(f"{path}: {dotted} is not there")
    old, place[last] = place[last], value
    return old


def _span(node: Any, steps: list[str]) -> tuple[int, int]:
    """Where the text of the value at these keys begins and ends; (0, 0) where no text of its own is there."""
    for step in steps:
        found = [value for key, value in node.value if key.value == step]
        if not found:
            return 0, 0
        node = found[-1]
    return node.start_mark.index, _end(node)


def _end(node: Any) -> int:
    """The end of a value's text; a block ends with its last value, not with the blank lines and comments after it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _text(value: Any) -> str:
    """The value on one line of YAML, as 1.1 and 1.2 read it alike (1.0e-05, not 1e-05)."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _unshared(value: Any) -> Any:
    """A copy in which nothing stands twice: what is written once and used by alias is one object when read."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
