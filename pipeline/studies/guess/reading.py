"""Format of a file by its content: every candidate is tried with the strict reader that a real run uses."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from pipeline.config import plugins
from pipeline.config.recipe import Part
from pipeline.data.formats._objects import DECODER, RepeatedKeyError
from pipeline.data.formats._shape import AllColumns, BadRow, Row, Shape
from pipeline.data.formats._text import MAX_RECORD_BYTES, File, line_parts, opened
from pipeline.data.message_shapes import is_conversation
from pipeline.errors import UserError
from pipeline.studies.guess import encoding as encodings
from pipeline.studies.guess import header
from pipeline.studies.guess.inputs import TEXTS, ending

HEAD = 400
"""Rows by which notations of a table are compared."""
_SHORT = 30
"""Characters of a label in a table that neither its ending nor its header tells."""
_DELIMITERS = {",": "csv", ";": "csv", "\t": "tsv", "|": "csv"}
_REFUSED = {
    "pdf": "a PDF", "doc": "a Word document", "docx": "a Word document", "odt": "a document", "rtf": "a document",
    "ppt": "slides", "pptx": "slides", "html": "a web page", "htm": "a web page", "xml": "XML", "epub": "a book",
    "py": "code", "yaml": "settings", "yml": "settings", "toml": "settings", "sql": "SQL", "png": "a picture",
    "jpg": "a picture", "jpeg": "a picture", "gif": "a picture", "mp3": "sound", "mp4": "a film", "exe": "a program",
}  # fmt: skip
Format = dict[str, Any]
Rows = Iterator[tuple[int, dict[str, Any] | BadRow]]


def rows(file: File, form: Format) -> Rows:
    """Line number, and the row by its column names or the reason of rejection, as the format's reader gives them.

    Raises:
        UserError: the file is not valid in this format.
    """
    reader = plugins.load("data/formats", form["name"])
    settings = Part.model_validate(form).settings("data/formats", "format")
    shape = AllColumns()
    for number, values in reader.rows(file, settings, shape):
        if isinstance(values, BadRow):
            yield number, values
        elif form["name"] == "txt":
            yield number, {"text": values[0]}
        elif shape.names and not (len(values) == 1 and isinstance(values[0], dict)):
            yield number, dict(zip(shape.names, values, strict=True))
        else:
            yield number, values[0]


def detect(file: File) -> tuple[Format, str | None, list[str]]:
    """The settings of its format, its encoding (None: binary format), and sentences on both.

    Raises:
        UserError: empty, binary, broken, or of a kind that cannot be read.
    """
    suffix = ending(file.name)
    if (binary := _binary(file, suffix)) is not None:
        sheet = f", sheet {binary['sheet']!r}" if "sheet" in binary else ""
        return binary, None, [f"format {binary['name']}{sheet} (format)"]
    if suffix in _REFUSED:
        raise UserError(
            f"{file.shown}: ending .{suffix} is {_REFUSED[suffix]}, which is not read; save its text as txt, or its "
            "table as csv"
        )
    encoding, told = encodings.detect(file)
    form = _json(file, encoding, suffix) or _tabular(file, encoding, suffix) or _plain(file, encoding)
    return form, encoding, [told, _sentence(form)]


def _sentence(form: Format) -> str:
    name = form["name"]
    if name in ("csv", "tsv"):
        between = "tabs" if name == "tsv" else repr(form["delimiter"])
        header = "the first row names the columns" if form["header"] else "no header, columns are called 0, 1, ..."
        quotes = "quotes enclose fields" if form["quoting"] == "standard" else "quotes are text"
        return f"format {name}: fields between {between}, {header}, {quotes} (format)"
    by = {
        "txt": "every {documents} is a document (format.documents)",
        "json": "an array of objects under key {records}" if form.get("records") else "an array of objects",
        "jsonl": "one object per line",
    }
    return f"format {name}: {by[name].format(**form)}"


def _binary(file: File, suffix: str) -> Format | None:
    with opened(file) as stream:
        head = stream.read(8)
    if head.startswith(b"PAR1"):
        return {"name": "parquet"}
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return {"name": "arrow"}
    if head.startswith(b"PK\x03\x04") or (head.startswith(b"\xd0\xcf\x11\xe0") and suffix in ("xls", "xlsx", "")):
        return _spreadsheet(file)
    return None


def _spreadsheet(file: File) -> Format:
    """The sheet with the most rows."""
    from pipeline.data.formats.xlsx import sheets

    lengths = sheets(file)
    if not lengths:
        raise UserError(f"{file.shown}: the spreadsheet has no sheet")
    sheet = max(lengths, key=lambda name: lengths[name])
    form = {"name": "xlsx", "sheet": sheet, "header": False}
    body = [list(row.values()) for _, row in islice(rows(file, form), HEAD) if isinstance(row, dict)]
    return form | {"header": header.is_header(body)}


def _json(file: File, encoding: str, suffix: str) -> Format | None:
    first, second = ([*_first_lines(file, encoding), "", ""])[:2]
    if not first.lstrip().startswith(("{", "[")):
        if suffix in ("json", "jsonl", "ndjson"):
            raise UserError(f"{file.shown}: not JSON: begins with {first[:20]!r}; expected {{ or [")
        return None
    try:
        return _json_form(file, encoding, first, second)
    except UserError:
        if suffix in TEXTS:  # a text may begin with a bracket
            return None
        raise


def _json_form(file: File, encoding: str, first: str, second: str) -> Format:
    lines = {"name": "jsonl", "encoding": encoding}
    array = {"name": "json", "encoding": encoding, "records": None}
    if first.lstrip().startswith("["):
        _objects(file, array)
        return array
    record = _object(first)
    if second and (record is not None or _objects(file, lines) > 1):
        return lines
    values = list((record or {}).values())
    if any(isinstance(value, list) and is_conversation(value) for value in values):
        return lines
    if (keyed := _keyed(file, array)) is not None:
        return keyed
    if any(isinstance(value, str) for value in values):
        return lines
    raise UserError(
        f"{file.shown}: one JSON object without an array of objects, with keys "
        f"{[key[:40] for key in record or {}][:10]}; expected an array with an object per record, or an object per line"
    )


def _first_lines(file: File, encoding: str) -> list[str]:
    """The first two lines that are not blank; of a longer line a part."""
    return list(islice((line for _, line in line_parts(file, encoding) if line.strip()), 2))


def _object(line: str) -> dict[str, Any] | None:
    """The object that a line holds; None for any other line."""
    try:
        value = DECODER.decode(line)
    except (ValueError, RecursionError, RepeatedKeyError):
        return None
    return value if isinstance(value, dict) else None


def _objects(file: File, form: Format) -> int:
    """Number of objects among the first rows."""
    return sum(isinstance(row, dict) for _, row in islice(rows(file, form), HEAD))


def _keyed(file: File, array: Format) -> Format | None:
    """The format of a file that is one object with an array of objects under a key; None for one without.

    Raises:
        UserError: invalid JSON.
    """
    from pipeline.data.formats.json import arrays

    lengths = arrays(file, array["encoding"], 10_000)
    forms = [array | {"records": key} for key in lengths]
    objects = {form["records"]: _objects(file, form) for form in forms}
    best = max(objects, key=lambda key: (objects[key] > 0, lengths[key], key.endswith("train")), default=None)
    return array | {"records": best} if best is not None and objects[best] else None


def _tabular(file: File, encoding: str, suffix: str) -> Format | None:
    """The notation in which most rows have as many fields as the first one; None where the file is running text."""
    is_table = suffix in ("csv", "tsv", "tab", "psv")
    head = _head(file, encoding)
    if is_table and "\r" in head.strip() and "\n" not in head.strip():
        raise UserError(f"{file.shown}: lines end in a bare CR (old Macintosh); save it with LF or CRLF as line ends")
    if len(head) > MAX_RECORD_BYTES and "\n" not in head:
        if is_table:
            raise UserError(f"{file.shown}: no line end within {MAX_RECORD_BYTES:,} bytes; expected a table of rows")
        return None
    candidates = [
        (score, form) for form in _notations(encoding, head) if (score := _consistency(file, form, suffix)) is not None
    ]
    if not candidates:
        if is_table:  # the strict reader's reason
            list(rows(file, _form(",", encoding, "standard")))
        return None
    (share, width, _), form = max(candidates, key=lambda pair: pair[0])
    if is_table and share < 0.5:
        raise UserError(_uneven(file, [form for _, form in candidates]))
    if not is_table and (width < 2 or share < 0.99 or _has_paragraphs(head) or not _is_table(file, form)):
        return None
    body = [list(row.values()) for _, row in islice(rows(file, form), HEAD) if isinstance(row, dict)]
    return form | {"header": header.is_header(body)}


def _has_paragraphs(head: str) -> bool:
    """Whether blank lines separate the others, as they do in running text; no exporter of tables writes them so."""
    lines = head.rstrip().splitlines()
    return sum(not line.strip() for line in lines) > len(lines) / 5


def _uneven(file: File, forms: list[Format]) -> str:
    """The error for a table whose rows differ in width in every notation, with the first such row of the likeliest."""

    def width(form: Format) -> int:
        return len(next(row for _, row in rows(file, form) if isinstance(row, dict)))

    likeliest = max(forms, key=width)
    number, bad = next((number, row) for number, row in rows(file, likeliest) if isinstance(row, BadRow))
    return (
        f"{file.shown}: rows are of different widths with each of the delimiters , ; | and tab; with "
        f"{likeliest.get('delimiter', 'tab')!r} the first such row is line {number}: {bad.detail} as in the first row; "
        "put fields that contain the delimiter in double quotes"
    )


def _head(file: File, encoding: str) -> str:
    return "".join(line for _, line in islice(line_parts(file, encoding), 50))


def _form(delimiter: str, encoding: str, quoting: str) -> Format:
    form: Format = {"name": _DELIMITERS[delimiter], "encoding": encoding, "header": False, "quoting": quoting}
    return form if delimiter == "\t" else form | {"delimiter": delimiter}


def _notations(encoding: str, head: str) -> Iterator[Format]:
    lone = None if _has_fields(head) else next((d for d in (",", ";", "|") if d not in head), None)
    for delimiter in _DELIMITERS:
        if delimiter in head or delimiter == lone:
            yield _form(delimiter, encoding, "standard")
            if '"' in head or delimiter == "\t":
                yield _form(delimiter, encoding, "none")


def _has_fields(head: str) -> bool:
    """Whether the first line has a delimiter that most lines have too, or is a comment above such lines."""
    first, *rest = [line for line in head.splitlines() if line.strip()] or [""]
    common = [d for d in _DELIMITERS if sum(d in line for line in rest) >= 0.8 * max(len(rest), 1)]
    return any(d in first or first.startswith("#") for d in common)


def _consistency(file: File, form: Format, suffix: str) -> tuple[float, int, int] | None:
    """Share of rows that are as wide as the first one (of tables with several columns in steps of 0.1, as a broken row
    counts less than a wrong notation), width, and preference; None where the reader refuses the file.
    """
    try:
        head = list(islice(rows(file, form), HEAD))
    except UserError:
        return None
    read = [list(row.values()) for _, row in head if isinstance(row, dict)]
    if not read:
        return None
    share, width = len(read) / len(head), len(read[0])
    quoted = [cell for row in read for cell in row if isinstance(cell, str) and cell.startswith('"')]
    closed = sum(cell.endswith('"') and len(cell) > 1 for cell in quoted)
    if form["quoting"] == "none" and quoted and closed == len(quoted):
        return None  # every quote that opens a field closes it: they are quotes, not text
    prefers = 2 * (suffix == form["name"]) + (form["quoting"] == ("none" if form["name"] == "tsv" else "standard"))
    spaced = sum(str(row[1]).startswith(" ") for row in read) if width > 1 else 0  # commas of a text, not of a table
    if width > 1 and share >= 0.9 and len(head) > 1:
        return 1 + round(share, 1) - 0.5 * (spaced > 0.5 * len(read)), width, prefers
    return (share if width == 1 else share / 2), 1, prefers


def _is_table(file: File, form: Format) -> bool:
    """Whether a file without a table's ending is one: tabs, a first row of names, or a column of few short values."""
    body = [list(row.values()) for _, row in islice(rows(file, form), HEAD) if isinstance(row, dict)]
    if len(body) < 3:
        return False
    if form["name"] == "tsv" or header.has_known_name(body[0]):
        return True
    columns = [{row[k] for row in body[1:]} for k in range(len(body[0]))]
    varied = any(len(values) >= len(body) / 2 for values in columns)
    few = any(1 < len(values) <= len(body) / 4 and max(map(len, values)) <= _SHORT for values in columns)
    return len(body) >= 8 and varied and few


def _plain(file: File, encoding: str) -> Format:
    """Text: documents are paragraphs; lines where there are no paragraphs and lines end as sentences do."""
    form = {"name": "txt", "encoding": encoding, "documents": "paragraph", "separator": None, "max_characters": 5000}
    lines = [line.strip() for _, line in islice(line_parts(file, encoding), 2000)]
    if "<|endoftext|>" in lines:
        return form | {"documents": "separator", "separator": "<|endoftext|>"}
    ended = sum(line.endswith((".", "!", "?", "…", '"', "”", ":", ";")) for line in lines)
    if "" not in lines[:-1] and len(lines) >= 5 and ended >= 0.7 * len(lines):
        return form | {"documents": "line"}
    return form


def shaped(file: File, form: Format, shape: Shape) -> Iterator[Row]:
    """The rows as a real run reads them, with the columns of `shape`."""
    reader = plugins.load("data/formats", form["name"])
    read: Iterator[Row] = reader.rows(file, Part.model_validate(form).settings("data/formats", "format"), shape)
    return read
