"""Guesses about a user's data: format, encoding, kind of records, columns of text, label, question and answer.

The files are read by the readers of a real run (pipeline/data/formats), every notation that fits is tried, and columns
are told by their names in several languages and by their content. A guess that cannot be made is a question on a
terminal, else an error that names the columns and the options to set. Each guess comes with the key of params.yaml that
sets it for a real run.
"""

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.recipe import Kind
from pipeline.data.formats._shape import BadRow, Shape
from pipeline.data.formats._template import Template, is_template
from pipeline.data.formats._text import File
from pipeline.data.label_cells import LabelForm
from pipeline.data.ledger import RowLog
from pipeline.errors import UserError
from pipeline.studies.guess import reading
from pipeline.studies.guess.columns import Columns
from pipeline.studies.guess.encoding import detect as encoding_of
from pipeline.studies.guess.inputs import Inputs, find
from pipeline.studies.guess.picker import Ask, Roles, Wishes, is_meta
from pipeline.studies.guess.reading import Format
from pipeline.studies.guess.roles import choose
from pipeline.studies.guess.texts import labels_of

__all__ = ["Ask", "Guess", "Wishes", "guess"]

MOST_ROWS = 1_000_000
"""Rows that are counted."""
_CHARACTERS = 200_000_000
"""Characters after which rows are not counted any more."""
_LOOKED = 20_000
_EVERY = 10
"""Rows that are all looked at, and the step between those that are looked at after them."""
_CHECKED = 5000
_CHECKED_FILES = 20
"""Files, and rows of each, that are read as records, to count those that a run would reject."""


@dataclass(frozen=True)
class Guess:
    """A source of params.yaml for the user's data, and a sentence for each guess."""

    kind: Kind
    format: Format
    columns: dict[str, str]
    sentences: tuple[str, ...]
    encoding: str | None = None
    """None: a binary format, which has none."""
    labels: dict[str, str] = field(default_factory=dict)
    """With kind labelled: value in the file -> label, in the order of their names."""
    rows: int = 0
    """Rows, blank lines not counted; of large data those that were looked at."""
    inputs: Inputs | None = None
    """The files, and how the source names them."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Rows that a run would reject, of those that were read as records: reason -> number."""
    coded: bool = False
    """Whether the file's labels are numbers or booleans, which params.yaml has to name."""
    label_form: LabelForm = "one"
    """With kind labelled: one label a row, or several (lists of labels)."""

    def entry(self, place: Path) -> dict[str, Any]:
        """The source below download.sources; `place`: the file, or one beside it, in inputs/."""
        path = {"path": (place if self.inputs is None else place.parent / self.inputs.path).as_posix()}
        if self.inputs is not None and self.inputs.members is not None:
            path["members"] = self.inputs.members
        return {
            "name": "files" if self.inputs is None else self.inputs.source,
            "licence": "not stated in a try", "consent": "not stated in a try",
            "weight": 1.0, **path, "sha256": None, "kind": self.kind, "columns": self.columns,
            "labels": self.labels if self.coded else {}, "language": "auto", "split": None, "format": self.format,
            **({} if self.label_form == "one" else {"label_form": self.label_form}),
        }  # fmt: skip

    def block(self, place: Path) -> str:
        """The source as it stands in params.yaml."""
        entry = yaml.safe_dump(
            self.entry(place), allow_unicode=True, sort_keys=False, default_flow_style=None, width=110
        )
        return "download:\n  sources:\n    own:\n" + textwrap.indent(entry, "      ")

    def running_text(self) -> dict[str, str]:
        """Columns of a second source that reads the same data as documents to pretrain on."""
        if self.kind == "documents" or not self.columns:
            return self.columns
        if "messages" in self.columns:
            return {"messages": self.columns["messages"]}
        roles = {"labelled": "text", "instructions": "output", "preferences": "chosen", "ratings": "answer"}
        role = "first" if "first" in self.columns else roles[self.kind]
        return {"text": self.columns.get(role, role)}

    def as_json(self) -> str:
        """The guess as one JSON object: kind, format, encoding, columns, labels (their names), rows."""
        guessed = {
            "kind": self.kind, "format": self.format, "encoding": self.encoding, "columns": self.columns,
            "labels": list(self.labels.values()), "rows": self.rows,
            **({} if self.label_form == "one" else {"label_form": self.label_form}),
        }  # fmt: skip
        return printable(json.dumps(guessed, ensure_ascii=False))


def guess(paths: Path | Sequence[Path], wishes: Wishes | None = None) -> Guess:
    """Guesses from the rows of the data, of more than 20,000 from every tenth.

    Args:
        paths: a file, a folder, a pattern, a zip archive; or several files.
        wishes: settings of the user, which are not guessed.

    Raises:
        UserError: no such file; empty, binary or broken; no column that looks
            like text; an ambiguity without a terminal to ask on.
    """
    try:
        return _guess([paths] if isinstance(paths, Path) else list(paths), wishes or Wishes())
    except OSError as error:
        where = error.filename or paths
        raise UserError(f"{where}: cannot be read ({error.strerror or type(error).__name__})") from None
    except RecursionError:
        raise UserError(f"{paths}: nested too deeply to read") from None


def _guess(paths: list[Path], wishes: Wishes) -> Guess:
    inputs = find(paths)
    form, encoding, told = _format(inputs)
    told = [*inputs.sentences, *told]
    columns, bad, form = _columns(inputs, form)
    if not columns.rows:
        raise UserError(_no_rows(inputs.shown, bad))
    if form["name"] == "txt":
        folders = inputs.labels() if wishes.kind in (None, "labelled") else []
        if folders and not (wishes.text or wishes.label):
            return _labelled_folders(inputs, form, encoding, told, folders)
        _require_no_columns(wishes, inputs.shown)
        told.append(f"{columns.rows:,} documents: kind documents (kind)")
        return Guess("documents", form, {}, tuple(told), encoding, rows=columns.rows, inputs=inputs)
    chosen = choose(columns, wishes, inputs.shown)
    fitting = [file.name for file in inputs.files if _fits(file, form, chosen)]
    if 0 < len(fitting) < len(inputs.files):
        lacking = [file.name for file in inputs.files if file.name not in fitting]
        told.append(f"left out, as they lack the columns: {', '.join(lacking[:5])} (path)")
        inputs = inputs.only(fitting)
        columns, bad, form = _columns(inputs, form)
    labels, coded, named = _labels(chosen, columns, inputs, form)
    told += [*_sentences(chosen, columns), *named]
    guessed = Guess(
        chosen.kind, form, chosen.columns, tuple(told), encoding, labels, columns.rows, inputs, coded=coded,
        label_form=_label_form(chosen, columns),
    )  # fmt: skip
    rejected, shown = _rejected(guessed)
    return replace(guessed, rejected=rejected, sentences=tuple(map(printable, (*told, *shown))))


def _labelled_folders(inputs: Inputs, form: Format, encoding: str | None, told: list[str], folders: list[str]) -> Guess:
    """Text files in one folder per label."""
    form = form | {"documents": "file", "separator": None, "max_characters": None}
    rows = len(inputs.files)
    told = [
        *told[:-1],
        "format txt: every file is a text (format.documents)",
        f"{rows:,} texts: kind labelled (kind)",
        f"label is the name of a text's folder: {', '.join(folders[:10])} (name: labelled_folders)",
    ]
    return Guess(
        "labelled", form, {}, tuple(told), encoding, dict(zip(folders, folders, strict=True)), rows,
        replace(inputs, source="labelled_folders"),
    )  # fmt: skip


def printable(text: str) -> str:
    """The text with halves of surrogate pairs, which no terminal shows, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _fits(file: File, form: Format, chosen: Roles) -> bool:
    """Whether a file has the columns."""
    try:
        next(reading.shaped(file, form, Shape("", chosen.kind, chosen.columns, {}, "und", None)), None)
    except UserError:
        return False
    return True


def _no_rows(shown: str, bad: dict[int, BadRow]) -> str:
    if not bad:
        return f"{shown}: holds no record; expected rows below the header, or objects"
    line, first = next(iter(bad.items()))
    return f"{shown}: no row can be read, the first at line {line}: {first.reason}, {first.detail}"


def _format(inputs: Inputs) -> tuple[Format, str | None, list[str]]:
    """Format and encoding of all files, which must agree."""
    form, encoding, told = reading.detect(max(inputs.files, key=lambda file: file.path.stat().st_size))
    if len(inputs.files) > 1 and encoding is not None:
        encoding = _common_encoding(inputs)
        form = form | {"encoding": encoding}
        told = [f"encoding {encoding} in all files", *told[1:]]
    return form, encoding, told


def _common_encoding(inputs: Inputs) -> str:
    by_encoding: dict[str, str] = {}
    for file in inputs.files[:2000]:
        encoding, told = encoding_of(file)
        if "only ASCII" not in told:
            by_encoding.setdefault(encoding, file.name)
    if set(by_encoding) <= {"utf-8", "utf-8-sig"}:
        return "utf-8"
    if len(by_encoding) > 1:
        listed = ", ".join(f"{encoding} ({name})" for encoding, name in by_encoding.items())
        raise UserError(f"{inputs.shown}: files of several encodings: {listed}; save all as UTF-8, or give one kind")
    return next(iter(by_encoding))


def _columns(inputs: Inputs, form: Format) -> tuple[Columns, dict[int, BadRow], Format]:
    """Statistics of all rows; where quotes turn out to be text further down, with `quoting: none`."""
    try:
        columns, bad = _read(inputs, form)
    except UserError:
        if form.get("quoting") != "standard":
            raise
        plain = form | {"quoting": "none"}
        columns, bad = _read(inputs, plain)
        if len(bad) > 0.01 * columns.rows:
            _read(inputs, form)
        form = plain
    return columns, bad, form


def _read(inputs: Inputs, form: Format) -> tuple[Columns, dict[int, BadRow]]:
    columns, bad, size = Columns(), dict[int, BadRow](), 0
    for file in inputs.files:
        for number, row in islice(reading.rows(file, form), MOST_ROWS):
            if not isinstance(row, BadRow):
                if columns.rows < _LOOKED or columns.rows % _EVERY == 0:
                    columns.add(row)
                columns.rows += 1
                size += sum(len(value) for value in row.values() if isinstance(value, str))
                if size > _CHARACTERS:
                    break
            elif len(bad) < _CHECKED:
                bad[number] = row
        if columns.rows >= MOST_ROWS or size > _CHARACTERS:
            columns.whole = False
            break
    return columns, bad


def _require_no_columns(wishes: Wishes, shown: str) -> None:
    if wishes.label or wishes.text or wishes.kind not in (None, "documents"):
        raise UserError(
            f"{shown}: plain text has documents and no columns; give a table (csv, xlsx, jsonl) for "
            f"{wishes.kind or 'a column'}"
        )


def _sentences(chosen: Roles, columns: Columns) -> list[str]:
    more = "" if columns.whole else " or more"
    told = [f"{columns.rows:,}{more} rows: kind {chosen.kind} (kind)", *chosen.sentences]
    told += [f"{role} is column {name!r} (columns.{role})" for role, name in chosen.columns.items()]
    used = {name for theirs in chosen.columns.values() for name in _names(theirs)}
    unused = [name for name in columns.by_name if name not in used and not name.endswith(".0")]
    if unused:
        told.append(f"not used: {', '.join(repr(name[:40]) for name in unused[:8])}")
    return told + _further_texts(chosen, columns)


def _names(theirs: str) -> tuple[str, ...]:
    """The columns of the file that one of ours is made of."""
    return Template(theirs).columns if is_template(theirs) else (theirs,)


def _further_texts(chosen: Roles, columns: Columns) -> list[str]:
    """A sentence that offers a template where the rows hold texts in other columns too."""
    text = chosen.columns.get("text")
    if text is None or is_template(text):
        return []
    others = [
        name
        for name, column in columns.by_name.items()
        if name not in chosen.columns.values() and not is_meta(column) and "{" not in name and not name.endswith(".0")
        and column.is_text(columns.looked) and not column.is_label(columns.looked)
    ]  # fmt: skip
    if not others:
        return []
    parts = sorted([text, others[0]], key=list(columns.by_name).index)
    template = "\\n\\n".join(f"{{{name}}}" for name in parts)
    return [f'{others[0][:40]!r} holds texts too; to read both: text: "{template}" (columns)']


def _labels(chosen: Roles, columns: Columns, inputs: Inputs, form: Format) -> tuple[dict[str, str], bool, list[str]]:
    """The labels, whether they are codes, and a sentence on them."""
    if chosen.labels:
        return chosen.labels, True, [f"{', '.join(f'{code}: {name}' for code, name in chosen.labels.items())} (labels)"]
    if chosen.kind != "labelled":
        return {}, False, []
    column = columns.by_name[chosen.columns["label"]]
    if column.is_label_sets:
        names = sorted(column.members)
        listed = f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
        return {name: name for name in names}, False, [f"several of {len(names)} labels a row: {listed} (label_form)"]
    coded = labels_of(column)
    if coded:
        names = class_names(inputs.files[0], form, chosen.columns["label"])
        if names:
            coded = {code: names[int(code)] if code.isdecimal() and int(code) < len(names) else code for code in coded}
    labels = coded or {str(value): str(value) for value in sorted(column.values)}
    listed = ", ".join(f"{code} ({name})" if code != name else code for code, name in list(labels.items())[:10])
    told = f"{len(labels)} labels: {listed}{', ...' if len(labels) > 10 else ''}"
    return labels, bool(coded), [told + (" (labels)" if coded else "")]


def _label_form(chosen: Roles, columns: Columns) -> LabelForm:
    """Whether rows have one label or several."""
    several = chosen.kind == "labelled" and columns.by_name[chosen.columns["label"]].is_label_sets
    return "several" if several else "one"


def class_names(file: File, form: Format, column: str) -> list[str]:
    """Names of a column's classes in the schema that `datasets` writes into parquet and Arrow files; else empty."""
    if form["name"] not in ("parquet", "arrow"):
        return []
    from pipeline.data.formats import _arrow

    info = _arrow.metadata(file, form["name"]).get(b"huggingface")
    try:
        feature = json.loads(info or b"{}")["info"]["features"]
        for step in column.split("."):
            feature = feature[step]
        names = feature.get("names") or feature.get("feature", {}).get("names")
        return [str(name) for name in names or []]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _rejected(guessed: Guess) -> tuple[dict[str, int], list[str]]:
    """Reasons of rows that a run would reject, and a sentence with the first one."""
    from pipeline.data.sources._records import tables

    assert guessed.inputs is not None
    rejected: list[Any] = []
    log = RowLog("guess", rejected.extend)
    labels = guessed.labels if guessed.coded else {}
    shape = Shape(
        "download.sources.own", guessed.kind, guessed.columns, labels, "und", None, label_form=guessed.label_form
    )
    for file in guessed.inputs.files[:_CHECKED_FILES]:
        try:
            shaped = islice(reading.shaped(file, guessed.format, shape), _CHECKED)
            for _ in tables(shaped, shape, file.name, file.shown, log):
                pass
        except UserError as error:
            if not log.reasons:
                raise UserError(str(error)) from None
    log.flush()
    if not rejected:
        return {}, []
    reasons = dict(Counter(row.reason for row in rejected))
    first = rejected[0]
    listed = ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())
    return reasons, [f"rows that a run rejects: {listed}; the first at line {first.line}: {first.detail[:200]}"]
