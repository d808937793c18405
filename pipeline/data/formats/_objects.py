"""What json and jsonl share: a decoder that refuses repeated keys, and the step from objects to rows."""

import json
from typing import Any

from pipeline.data.formats._shape import Bad, Shape
from pipeline.errors import UserError

_INT_DIGITS = 4000  # Python refuses to read longer integers; such a number is no text either way


class RepeatedKeyError(Exception):
    """A key stands twice in one object; readers differ in which value they take, so the file is refused."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return found


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _INT_DIGITS else float("inf")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


class Objects:
    """Turns decoded values into rows; a first object that lacks a needed field refuses the file."""

    def __init__(self, shape: Shape, shown: str) -> None:
        self.shape, self.shown, self.first = shape, shown, True

    def row(self, value: Any) -> tuple[Any, ...] | Bad:
        if not isinstance(value, dict):
            return Bad("not_an_object", f"found {type(value).__name__}; expected an object with named fields")
        if self.first:
            self.shape.places(list(value), self.shown)
            self.first = False
        return self.shape.pick(value)

    def repeated(self, line: int, key: str) -> UserError:
        return UserError(
            f"{self.shown}: line {line}: the key {key!r} stands twice in one object; "
            "expected each key once: rename or remove one"
        )
