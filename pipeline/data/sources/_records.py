"""Rows become record tables: checked value by value, nothing altered, what is unfit goes to the log.

A value is text or it is no value: numbers are not turned into text, null is not turned into "", "NA" stays
"NA". The one exception is written down by the user: a label that is a number or a truth value is taken when
`labels` names it.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.config.recipe import Kind
from pipeline.data import conversations
from pipeline.data.formats._shape import ABSENT, MESSAGES, OPTIONAL, Bad, Field, Row, Shape
from pipeline.data.ledger import RowLog
from pipeline.data.records import CONTENT, SCHEMAS, SPLITS
from pipeline.errors import UserError

TABLE_ROWS = 2000
TABLE_CHARACTERS = 8 << 20
_SAID = CONTENT["instructions"]  # what a list of messages becomes


def tables(rows: Iterator[Row], shape: Shape, file: str, shown: str, log: RowLog) -> Iterator[tuple[Kind, pa.Table]]:
    """Tables of at most 2,000 rows and about 8 million characters, without id and source.

    Args:
        rows: what a format read, in order.
        file: how `origin` and the log call the file; no folder, so that outs do not depend on where it
            stands. shown: how errors call it.

    Raises:
        UserError: not one row could be kept.
    """
    batch: list[dict[str, Any]] = []
    characters = kept = 0
    seen: list[tuple[int, Bad]] = []
    guess = _guesser(shape)
    for line, values in rows:
        record = values if isinstance(values, Bad) else _record(values, shape)
        if isinstance(record, Bad):
            log.reject(shape.kind, file, line, record.reason, record.detail)
            seen = seen or [(line, record)]
            continue
        content = [record[name] for name in CONTENT[shape.kind]]
        record.setdefault("language", guess(" ".join(content)))
        record.setdefault("split", shape.split)
        record["origin"] = f"{file}:{line}"
        batch.append(record)
        kept += 1
        characters += sum(map(len, content))
        if len(batch) >= TABLE_ROWS or characters >= TABLE_CHARACTERS:
            yield shape.kind, _table(batch, shape.kind, log)
            batch, characters = [], 0
    if batch:
        yield shape.kind, _table(batch, shape.kind, log)
    if not kept:
        raise UserError(_nothing(shown, shape, seen))


def _nothing(shown: str, shape: Shape, seen: list[tuple[int, Bad]]) -> str:
    if not seen:
        return f"{shown}: holds no record; expected at least one of kind {shape.kind}"
    line, bad = seen[0]
    return (
        f"{shown}: every row was rejected, the first at line {line}: {bad.reason}, {bad.detail}; "
        f"expected {shape.kind}: see columns, labels and format in {shape.where}"
    )


def _guesser(shape: Shape) -> Any:
    if shape.language != "auto":
        return lambda text: shape.language
    from pipeline.data.language import guess

    return guess


def _record(values: tuple[Any, ...], shape: Shape) -> dict[str, Any] | Bad:
    record: dict[str, Any] = {}
    for field, value in zip(shape.fields, values, strict=True):
        if field.ours == MESSAGES:
            said = conversations.record(value)
            if isinstance(said, str):
                return Bad("not_a_conversation", f"{field.theirs}: {said}")
            parts = [
                _value(Field(ours, field.theirs, True), text, shape) for ours, text in zip(_SAID, said, strict=True)
            ]
            if wrong := next((part for part in parts if isinstance(part, Bad)), None):
                return wrong
            record |= dict(zip(_SAID, parts, strict=True))
            continue
        checked = _value(field, value, shape)
        if isinstance(checked, Bad):
            return checked
        record[field.ours] = checked
    if shape.kind == "preferences" and record["chosen"] == record["rejected"]:
        return Bad("equal_pair", "chosen and rejected are the same text; expected a preference")
    return record


def _value(field: Field, value: Any, shape: Shape) -> str | Bad:
    """The text of one field, or why there is none."""
    if value is ABSENT:
        return ""
    if value is None:
        return Bad("null", f"{field.theirs} is null; expected text")
    if field.ours == "label" and type(value) in (int, bool):
        value = str(value).lower() if str(value).lower() in shape.labels else value
    if not isinstance(value, str):
        return Bad("not_text", f"{field.theirs} is {type(value).__name__} {value!r:.40}; expected text")
    if field.ours not in OPTIONAL and not value.strip():
        return Bad("empty", f"{field.theirs} is empty; expected text")
    if "\0" in value:
        return Bad("nul", f"{field.theirs} holds a NUL at character {value.index(chr(0))}")
    if not _is_unicode(value):
        return Bad("surrogate", f"{field.theirs} holds half of a surrogate pair, which is no character")
    if field.ours == "label" and shape.labels:
        if value not in shape.labels:
            return Bad("unknown_label", f"{field.theirs} is {value!r:.40}; one of: {', '.join(shape.labels)}")
        return shape.labels[value]
    if field.ours == "split" and value not in SPLITS:
        return Bad("unknown_split", f"{field.theirs} is {value!r:.40}; one of: {', '.join(SPLITS)}")
    return value


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _table(batch: list[dict[str, Any]], kind: Kind, log: RowLog) -> pa.Table:
    names = [name for name in SCHEMAS[kind].names if name not in ("id", "source")]
    schema = pa.schema([SCHEMAS[kind].field(name) for name in names])
    log.accept(kind, len(batch))
    return pa.Table.from_pylist(batch, schema=schema)
