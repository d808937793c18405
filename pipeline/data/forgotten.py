"""The list of forgotten records, which stage download leaves out of every source (`download.forget` of params.yaml).

A text file below inputs/: one record id a line, anything after # is a comment. An id is a hash of the record's content
(`records.record_id`), so the list holds no text, and the same record is left out wherever it comes from again. Someone
who has the text can still tell that it is listed.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import write_text

_ID = re.compile(r"[0-9a-f]{16}")
HEADER = (
    "# Records that every run leaves out (`tohum forget`): ids, which are hashes of their content.\n"
    "# Keep this file as long as a source still holds one of them.\n"
)


def read(path: str | Path | None) -> frozenset[str]:
    """The ids of a list; none for null.

    Raises:
        UserError: no such file, or a line that is no id.
    """
    if path is None:
        return frozenset()
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
            if not _ID.fullmatch(text):
                raise UserError(
                    f"{path}: line {number} is {text!r:.60}; expected a record id of 16 hexadecimal digits, which "
                    "`tohum forget ROW` shows for a text, an origin or a hash"
                )
            ids.append(text)
    return frozenset(ids)


def add(path: Path, kinds: Mapping[str, str]) -> list[str]:
    """Appends the ids that are not listed yet, in order; `kinds`: id -> record kind. Returns them."""
    known = read(path) if path.exists() else frozenset()
    new = [identity for identity in kinds if identity not in known]
    before = path.read_text(encoding="utf-8") if path.exists() else HEADER
    if before and not before.endswith("\n"):
        before += "\n"
    if new:
        write_text(path, before + "".join(f"{identity} # {kinds[identity]}\n" for identity in new))
    return new


def listed(ids: Iterable[str], forgotten: frozenset[str]) -> list[bool]:
    """Whether each record is listed."""
    return [identity in forgotten for identity in ids]
