"""Shared parts of json and jsonl: a decoder that refuses repeated keys, and conversion of objects to rows."""

import json
from typing import Any

from pipeline.data.formats._shape import BadRow, Shape
from pipeline.errors import UserError

_INT_DIGITS = 4000  # Python does not parse longer integers; as no field takes a number, its value does not matter


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


class Objects:
    """Converter of decoded JSON values to rows."""

    def __init__(self, shape: Shape, shown: str) -> None:
        self.shape, self.shown, self.first = shape, shown, True

    def row(self, value: Any) -> tuple[Any, ...] | BadRow:
        """The field values of one object in the order of `Shape.fields`, or the reason why it is rejected.

        Raises:
            UserError: the first object lacks a required field.
        """
        if not isinstance(value, dict):
            return BadRow("not_an_object", f"found {type(value).__name__}; expected an object with named fields")
        if self.first:
            self.shape.places(list(value), self.shown)
            self.first = False
        return self.shape.pick(value)

    def repeated(self, line: int, key: str) -> UserError:
        """The error for a key that occurs twice in the object at a line."""
        return UserError(
            f"{self.shown}: line {line}: the key {key!r} occurs twice in one object; "
            "expected each key once: rename or remove one"
        )
