"""The list of forgotten records, which stage download leaves out of every source (`download.forget` of params.yaml).

A text file below inputs/: one record id a line, anything after # is a comment. An id is a hash of the record's content
(`records.record_id`), so the list holds no text, and the same record is left out wherever it comes from again. A line
that begins with ~ is the hash of a record's normal form without its label (`erasure.form_of`): a corrected label, other
letter case or one more space does not bring the record back. Someone who has the text can still tell that it is listed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.config.recipe import Kind
from pipeline.data.erasure import form_of
from pipeline.data.records import CONTENT
from pipeline.errors import UserError
from pipeline.files import write_text

_LINE = re.compile(r"~?[0-9a-f]{16}")
HEADER = (
    "# Records that every run leaves out (`tohum forget`): ids, which are hashes of their content, and after ~ hashes\n"
    "# of their normal form without label, letter case and white space.\n"
    "# Keep this file as long as a source still holds one of them.\n"
)


@dataclass(frozen=True)
class Forgotten:
    """The content of a list."""

    ids: frozenset[str] = frozenset()
    forms: frozenset[str] = frozenset()
    """Hashes of normal forms."""

    def listed(self, records: pa.Table, kind: Kind) -> list[bool]:
        """Whether each record is listed, by its id or by its normal form."""
        known = [identity in self.ids for identity in records.column("id").to_pylist()]
        if not self.forms:
            return known
        rows = records.select(["language", *CONTENT[kind]]).to_pylist()
        return [by_id or form_of(row, kind) in self.forms for by_id, row in zip(known, rows, strict=True)]


def read(path: str | Path | None) -> Forgotten:
    """The ids and normal forms of a list; none for null.

    Raises:
        UserError: no such file, or a line that is no id.
    """
    if path is None:
        return Forgotten()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file, params.yaml: download.forget names it; restore it, or `tohum forget ROW --apply` "
            "begins a new one with download.forget: null"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is no UTF-8; expected one record id a line") from None
    ids = []
    for number, line in enumerate(lines, 1):
        if text := line.partition("#")[0].strip():
            if not _LINE.fullmatch(text):
                raise UserError(
                    f"{path}: line {number} is {text!r:.60}; expected a record id of 16 hexadecimal digits, which "
                    "`tohum forget ROW` shows for a text, an origin or a hash"
                )
            ids.append(text)
    return Forgotten(
        frozenset(text for text in ids if text[0] != "~"), frozenset(text[1:] for text in ids if text[0] == "~")
    )


def add(path: Path, kinds: Mapping[str, str], forms: Mapping[str, str] | None = None) -> list[str]:
    """Appends the ids that are not listed yet, in order, and their normal forms.

    Args:
        path: the list.
        kinds: id -> record kind.
        forms: hash of a normal form -> record kind.

    Returns:
        The new ids.
    """
    known = read(path) if path.exists() else Forgotten()
    new = [identity for identity in kinds if identity not in known.ids]
    lines = [f"{identity} # {kinds[identity]}\n" for identity in new]
    lines += [f"~{form} # {kind}, normal form\n" for form, kind in (forms or {}).items() if form not in known.forms]
    before = path.read_text(encoding="utf-8") if path.exists() else HEADER
    if before and not before.endswith("\n"):
        before += "\n"
    if lines:
        write_text(path, before + "".join(lines))
    return new
