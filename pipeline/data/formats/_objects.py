"""Shared parts of json, jsonl, parquet and arrow: a decoder that refuses repeated keys, and objects as rows."""

import json
from collections.abc import Iterator
from typing import Any

from pipeline.data.formats._shape import ABSENT, BadRow, Row, Shape, value_at
from pipeline.errors import UserError

_INT_DIGITS = 4000  # Python does not parse longer integers; as no field takes a number, its value does not matter
_PATIENCE = 1000  # objects without a required field after which the name in params.yaml counts as wrong


class RepeatedKeyError(Exception):
    """A key occurs twice in one object; JSON readers differ in the value they take, so the file is refused."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return fields


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _INT_DIGITS else float("inf")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def object_rows(values: Iterator[tuple[int, Any]], shape: Shape, shown: str) -> Iterator[Row]:
    """Field values of decoded objects in the order of `Shape.fields`, or the reason why one is rejected.

    Args:
        values: number and decoded value of each object; a BadRow is passed on.
        shape: kind and column mapping.
        shown: the file's name in errors.

    Raises:
        UserError: no object has a required field that params.yaml names; told at the end of the file, or after the
            first 1,000 objects.
    """
    wanted = {field.theirs for field in shape.fields if field.required}
    names: dict[str, None] = {}
    objects = 0
    for number, value in values:
        if not isinstance(value, dict):
            bad = BadRow("not_an_object", f"found {type(value).__name__}; expected an object with named fields")
            yield number, value if isinstance(value, BadRow) else bad
            continue
        if wanted:
            objects += 1
            wanted = {name for name in wanted if value_at(value, name) is ABSENT}
            names |= dict.fromkeys(value)
            if wanted and objects == _PATIENCE:
                shape.require(_all(shape) - wanted, list(names), shown)
        yield number, shape.pick(value)
    if wanted and objects:
        shape.require(_all(shape) - wanted, list(names), shown)


def _all(shape: Shape) -> set[str]:
    return {field.theirs for field in shape.fields}


def repeated(shown: str, line: int, key: str) -> UserError:
    """The error for a key that occurs twice in the object at a line."""
    return UserError(
        f"{shown}: line {line}: the key {key[:40]!r} occurs twice in one object; "
        "expected each key once: rename or remove one"
    )
