"""Validation of rows: every value is checked, none is altered, invalid rows are rejected and logged with a reason.

A field must be text: numbers are not converted to text, null is not converted to "", and "NA" stays "NA". Exceptions: a
label that is a number or a boolean is accepted where `labels` names it, also as a list of one (several labels and
numbers: `label_form`); an `input` that is null or missing is empty; a list of messages is read as a conversation, or as
the running text of a document. Cells of a column template and of added columns may be numbers, booleans or dates, which
become text; an empty cell of an added column is null, but a `time` is required.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time
from typing import Any

import pyarrow as pa

from pipeline.config.recipe import Kind
from pipeline.data import conversations, judgements, label_cells, message_shapes
from pipeline.data.formats._shape import ABSENT, MESSAGES, OPTIONAL, TOOLS, BadRow, Field, Row, Shape
from pipeline.data.ledger import RowLog
from pipeline.data.records import SPLITS, TEXTS, TIME, schema
from pipeline.data.sources import _judged
from pipeline.errors import UserError

TABLE_ROWS = 2000
TABLE_CHARACTERS = 8 << 20


def tables(rows: Iterator[Row], shape: Shape, file: str, shown: str, log: RowLog) -> Iterator[tuple[Kind, pa.Table]]:
    """Tables of at most 2,000 rows and about 8 million characters, without id and source.

    Args:
        rows: the rows of a format, in order.
        shape: kind and column mapping.
        file: the file's name in `origin` and in the log, without a folder, so that outs do not depend on its place.
        shown: the file's name in errors.
        log: counts accepted rows, logs rejected ones.

    Raises:
        UserError: all rows were rejected, or there are none.
    """
    batch: list[dict[str, Any]] = []
    characters = kept = ties = 0
    seen: list[tuple[int, BadRow]] = []
    guess = _guesser(shape)
    for line, values in rows:
        record = values if isinstance(values, BadRow) else _record(values, shape)
        if record is None:
            ties += 1
            continue
        if isinstance(record, BadRow):
            log.reject(shape.kind, file, line, record.reason, record.detail)
            seen = seen or [(line, record)]
            continue
        content = [record[name] or "" for name in TEXTS[shape.kind] if name in record]
        record.setdefault("language", guess(" ".join(content)))
        record.setdefault("split", shape.split)
        record["origin"] = f"{file}:{line}"
        batch.append(record)
        kept += 1
        characters += sum(map(len, content))
        if len(batch) >= TABLE_ROWS or characters >= TABLE_CHARACTERS:
            yield shape.kind, _table(batch, shape, log)
            batch, characters = [], 0
    if batch:
        yield shape.kind, _table(batch, shape, log)
    if ties:
        log.notes.append(f"{file}: {ties:,} ties left out: neither answer is preferred")
    if not kept:
        raise UserError(_nothing(shown, shape, seen, ties))


def _nothing(shown: str, shape: Shape, seen: list[tuple[int, BadRow]], ties: int) -> str:
    if ties and not seen:
        return f"{shown}: each of its {ties:,} rows is a tie; expected at least one preference"
    if not seen:
        return f"{shown}: holds no record; expected at least one of kind {shape.kind}"
    line, rejected = seen[0]
    return (
        f"{shown}: every row was rejected, the first at line {line}: {rejected.reason}, {rejected.detail}; "
        f"expected {shape.kind}: see columns, labels and format in {shape.where}"
    )


def _guesser(shape: Shape) -> Callable[[str], str]:
    """Text -> language: the declared one, or a guess."""
    if shape.language != "auto":
        return lambda _: shape.language
    from pipeline.data.language import guess

    return guess


def _record(values: tuple[Any, ...], shape: Shape) -> dict[str, Any] | BadRow | None:
    """The record of a row, or the reason why it is rejected; None for a tie, of which no preference can be made."""
    row = {field.ours: value for field, value in zip(shape.fields, values, strict=True)}
    for name in TOOLS:
        if row.pop(name, ABSENT) not in (ABSENT, None, "", [], {}):
            return BadRow("tools", f"{name} offers tools, which this project cannot teach to use")
    if (fault := _fill_templates(row, shape)) is not None:
        return fault
    read = _from_messages(row, shape)
    if isinstance(read, BadRow):
        return read
    record: dict[str, Any] = {}
    for field in (*shape.fields, *shape.templated):
        if field.ours in row and field.ours not in read:
            checked = _value(field, row[field.ours], shape)
            if isinstance(checked, BadRow):
                return checked
            record[field.ours] = checked
    record |= read
    if shape.judges:
        return _judged.record(record, shape)
    if shape.kind == "preferences" and record["chosen"] == record["rejected"]:
        return BadRow("equal_pair", "chosen and rejected are the same text; expected a preference")
    return record


def _fill_templates(row: dict[str, Any], shape: Shape) -> BadRow | None:
    """Puts the texts of templates into the row in place of their columns; the fault of a cell that is no text."""
    cells: dict[str, str] = {}
    for field in shape.fields:
        if field.ours.startswith("{"):
            value = row.pop(field.ours)
            cell = "" if value in (None, ABSENT) else _plain_text(value)
            if cell is None:
                return _not_text(field, value)
            cells[field.theirs] = cell
    row |= {ours: template.filled(cells) for ours, template in shape.templates.items()}
    return None


def _from_messages(row: dict[str, Any], shape: Shape) -> dict[str, Any] | BadRow:
    """The content of a row that holds lists of messages, taken out of the row; empty where it holds texts.

    A conversation is in `messages`, or begins in `instruction` and ends in `output`, or in `chosen` and `rejected`.
    """
    if shape.kind == "documents":
        return _running_text(row, shape)
    if MESSAGES in row:
        return _conversation({"output": message_shapes.messages(row.pop(MESSAGES))}, shape.columns[MESSAGES])
    answers: tuple[str, ...] = ()
    if shape.kind in ("instructions", "preferences"):
        answers = tuple(name for name in ("output", "chosen", "rejected", "first", "second") if name in shape.content)
    question = row.get("instruction")
    if not answers or not (
        question is ABSENT or any(isinstance(row[name], list) for name in ("instruction", *answers))
    ):
        return {}
    prompt = None if question is ABSENT else question
    whole = {name: message_shapes.joined(prompt, row[name]) for name in answers}
    content = _conversation(whole, ", ".join(shape.columns.get(name, name) for name in answers))
    if not isinstance(content, BadRow) and row.get("input", ABSENT) not in (ABSENT, None, ""):
        return BadRow("not_a_conversation", "input beside lists of messages; expected their texts in the messages")
    return content


def _running_text(row: dict[str, Any], shape: Shape) -> dict[str, Any] | BadRow:
    """The text of a document that is a list of messages; empty for other documents."""
    name = MESSAGES if MESSAGES in row else "text"
    if name == "text" and not (isinstance(row["text"], list) and message_shapes.is_conversation(row["text"])):
        return {}
    text = message_shapes.running_text(row.pop(name))
    shown = shape.columns.get(name, name)
    if text is None:
        return BadRow("not_a_conversation", f"{shown}: a message without text; expected a list of messages with text")
    return _fault(Field("text", shown, True), text) or {"text": text}


def _conversation(whole: dict[str, Any], shown: str) -> dict[str, Any] | BadRow:
    """Columns of conversations that differ in their last answer only: answer column -> list of messages."""
    read: dict[str, Any] = {}
    for name, said in whole.items():
        conversation = conversations.record(said)
        if isinstance(conversation, str):
            return BadRow("not_a_conversation", f"{shown}: {conversation}")
        question, before, answer = conversation
        columns = {"instruction": question, "input": "", "history": before or None}
        if read and any(read[key] != value for key, value in columns.items()):
            return BadRow("not_a_pair", f"{shown}: the conversations differ before their last answers")
        read |= columns | {name: answer}
    for name, text in read.items():
        if text and (fault := _fault(Field(name, shown, True), text)) is not None:
            return fault
    return read


def _value(field: Field, value: Any, shape: Shape) -> str | BadRow | None:
    """The text of one field, or the reason why the row is rejected; null for an empty cell of an added column."""
    if field.ours in shape.added:
        return _time(field, value) if field.ours == TIME else _cell(field, value)
    if value is ABSENT or (value is None and field.ours in OPTIONAL):
        return ""
    if field.ours == "label":
        return _label(field, value, shape)
    if shape.judges and field.ours in ("choice", "thumb"):
        return _judged.judgement(field, value, shape)
    if field.ours == judgements.RATER:
        cell = _cell(field, value)
        return "" if cell is None else cell
    if (fault := _fault(field, value)) is not None:
        return fault
    if field.ours == "split" and value not in SPLITS:
        return BadRow("unknown_split", f"{field.theirs} is {value!r:.40}; one of: {', '.join(SPLITS)}")
    return str(value)


def _label(field: Field, value: Any, shape: Shape) -> str | BadRow:
    """The label cell of a row (pipeline/data/label_cells.py), or the reason why the row is rejected."""
    if shape.label_form == "number":
        number = label_cells.number_of(value)
        if number is None:
            return BadRow("not_a_number", f"{field.theirs} is {value!r:.40}; expected a finite number such as 3.5")
        return label_cells.number_cell(number)
    if shape.label_form == "several":
        return _several_labels(field, value, shape)
    if isinstance(value, list) and len(value) != 1:
        return BadRow(
            "several_labels",
            f"{field.theirs} is a list of {len(value)}; expected one label, or label_form: several (multi_label)",
        )
    return _one_label(field, value[0] if isinstance(value, list) else value, shape)


def _several_labels(field: Field, value: Any, shape: Shape) -> str | BadRow:
    """The labels of a list, of a JSON list in a text, or of a text with separators; none is allowed."""
    listed = value
    if isinstance(value, str):
        listed = label_cells.several_in(value.strip())
        if listed is None and shape.label_separator is not None:
            listed = [part.strip() for part in value.split(shape.label_separator) if part.strip()]
    if not isinstance(listed, list):
        return BadRow(
            "not_a_list", f"{field.theirs} is {value!r:.40}; expected a list of labels, or text and a label_separator"
        )
    labels = [_one_label(field, label, shape) for label in listed]
    bad = next((label for label in labels if isinstance(label, BadRow)), None)
    return bad or label_cells.several_cell(label for label in labels if isinstance(label, str))


def _one_label(field: Field, value: Any, shape: Shape) -> str | BadRow:
    value = label_text(value, shape.labels)
    if (fault := _fault(field, value)) is not None:
        return fault
    if shape.labels:
        if value not in shape.labels:
            return BadRow("unknown_label", f"{field.theirs} is {value!r:.40}; one of: {', '.join(shape.labels)}")
        return shape.labels[value]
    return str(value)


def _cell(field: Field, value: Any) -> str | BadRow | None:
    """The cell of an added column as text; null where it is empty."""
    if value is None or value is ABSENT or value == "":
        return None
    text = _plain_text(value)
    if text is None:
        return _not_text(field, value)
    return (_fault(field, text) or text) if text.strip() else None


def _time(field: Field, value: Any) -> str | BadRow:
    """A date or time as ISO 8601 in UTC, to the second; one without a time zone counts as UTC."""
    if value in (None, ABSENT, ""):
        return BadRow("null", f"{field.theirs} is empty; expected a date or time, as every record has one")
    try:
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        if isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime.combine(moment, time())
        if isinstance(moment, datetime):
            moment = moment.astimezone(UTC) if moment.tzinfo else moment
            return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
    except (ValueError, OverflowError):
        pass
    return BadRow(
        "not_a_time", f"{field.theirs} is {value!r:.40}; expected ISO 8601, as 2024-05-31 or 2024-05-31T08:00:00+03:00"
    )


def _plain_text(cell: Any) -> str | None:
    """A cell as text: numbers, booleans (true, false) and dates as they are written; None for any other value."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, date):  # a datetime is one
        return cell.isoformat()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell) if isinstance(cell, int | float) else None


def label_text(value: Any, labels: dict[str, str]) -> Any:
    """A number or boolean as `labels` names it (1, 1.0: "1"; true: "true"); any other value as it is."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = str(value).lower() if isinstance(value, int) else value
    return name if isinstance(value, int) and name in labels else value


def _fault(field: Field, value: Any) -> BadRow | None:
    """The reason why a value is no valid text, if there is one."""
    if value is None:
        return BadRow("null", f"{field.theirs} is null; expected text")
    if not isinstance(value, str):
        return _not_text(field, value)
    if field.ours not in OPTIONAL and not value.strip():
        return BadRow("empty", f"{field.theirs} is empty; expected text")
    if "\0" in value:
        return BadRow("nul", f"{field.theirs} holds a NUL at character {value.index(chr(0))}")
    if not _is_unicode(value):
        return BadRow("surrogate", f"{field.theirs} holds half of a surrogate pair, which is no character")
    return None


def _not_text(field: Field, value: Any) -> BadRow:
    return BadRow("not_text", f"{field.theirs} is {type(value).__name__} {value!r:.40}; expected text")


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _table(batch: list[dict[str, Any]], shape: Shape, log: RowLog) -> pa.Table:
    whole = schema(shape.kind, shape.added)
    log.accept(shape.kind, len(batch))
    fields = [field for field in whole if field.name not in ("id", "source")]
    return pa.Table.from_pylist(batch, schema=pa.schema(fields))
