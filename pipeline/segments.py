"""Append-only log of JSON lines in numbered segments, `<utc date>-<n>.jsonl`: format and reading.

A line is one JSON object. It begins with its sequence number `n` and its `kind`, and ends with `sha256`, the first 32
hexadecimal digits of the SHA-256 of all bytes before that field. The n of a file's name is the number of its first
line. Numbers only grow and are never used again, so a reader that keeps the number of the last entry it has read can
continue after a segment was rewritten (an erasure, a size bound). A last line without its line feed was never
acknowledged and is skipped; any other line whose checksum does not fit is damaged and is named.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)-(\d+)\.jsonl", re.ASCII)
_DIGITS = 32
OVERHEAD = 80
"""Bytes of a line beside its fields, at most."""
_SUFFIX = re.compile(rb', "sha256": "([0-9a-f]{32})"\}\n?$')
_START = re.compile(rb'\{"n": (\d+), "kind": "([a-z]+)"')


@dataclass(frozen=True)
class Segment:
    """A file of the log."""

    path: Path
    first: int
    """Number of its first line; of the first line to come while it has none."""

    @property
    def date(self) -> str:
        """UTC date of its first line, as `2026-11-29`."""
        return self.path.name[:10]


@dataclass(frozen=True)
class Damage:
    """A line whose checksum does not fit its content."""

    path: Path
    line: int
    """1-based."""

    def __str__(self) -> str:
        return f"{self.path}: line {self.line} is damaged (its checksum does not fit its content) and is left out"


def report(damage: Damage) -> None:
    """Prints a damaged line."""
    print(damage, flush=True)


def name(date: str, first: int) -> str:
    """File name of a segment."""
    return f"{date}-{first}.jsonl"


def segments(folder: Path) -> list[Segment]:
    """The segments of a folder in order; none where there is no such folder."""
    if not folder.is_dir():
        return []
    found = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir())
    return sorted((Segment(path, int(match[2])) for path, match in found if match), key=lambda one: one.first)


def body(entry: Entry) -> bytes:
    """An entry's fields as they stand between its number and its checksum.

    Raises:
        ValueError: NaN or infinity.
        TypeError: a value that JSON lacks.
    """
    fields = {"kind": entry["kind"], **{key: value for key, value in entry.items() if key not in ("n", "sha256")}}
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False)[1:-1].encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 lacks; JSON can spell it
        return json.dumps(fields, allow_nan=False)[1:-1].encode("ascii")


def sealed(number: int, fields: bytes) -> bytes:
    """A whole line: number, fields (`body`), checksum, line feed."""
    start = b'{"n": %d, %s' % (number, fields)
    return start + b', "sha256": "%s"}\n' % _checksum(start)


def opened(line: bytes) -> Entry | None:
    """The entry of a line; None where its checksum does not fit."""
    if not is_whole(line):
        return None
    entry = json.loads(line)
    return entry if isinstance(entry, dict) else None


def is_whole(line: bytes) -> bool:
    """Whether a line's checksum fits its content."""
    match = _SUFFIX.search(line)
    return match is not None and _checksum(line[: match.start()]) == match[1]


def head(line: bytes) -> tuple[int, str]:
    """Number and kind of a line, without parsing the rest; (0, "") for another line."""
    match = _START.match(line)
    return (int(match[1]), match[2].decode()) if match else (0, "")


def end_of(segment: Segment) -> tuple[int, int]:
    """Bytes of a segment's lines that end with a line feed, and the number after its last one."""
    size, following = 0, segment.first
    with segment.path.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                size += len(line)
                number = head(line)[0] if is_whole(line) else 0
                following = max(following, number) + 1 if number else following + 1
    return size, following


def last_number(folder: Path) -> int:
    """Number of the last entry of a log, erased ones too; 0 of an empty one."""
    found = segments(folder)
    return end_of(found[-1])[1] - 1 if found else 0


def lines(
    path: Path, on_damage: Callable[[Damage], None] = report, after: int = 0, kinds: Collection[str] = ()
) -> Iterator[bytes]:
    """The whole lines of a segment, each with its line feed; none of a segment that was removed meanwhile.

    Args:
        path: the segment.
        on_damage: called for each damaged line.
        after: only entries with a greater number.
        kinds: only entries of these kinds, without a check of the others; (): all.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        for number, line in enumerate(stream, 1):
            n, kind = head(line)
            if line.endswith(b"\n") and not (n and (n <= after or (kinds and kind not in kinds))):
                if is_whole(line):
                    yield line
                else:
                    on_damage(Damage(path, number))


def read(
    folder: Path, after: int = 0, on_damage: Callable[[Damage], None] = report, kinds: Collection[str] = ()
) -> Iterator[Entry]:
    """The entries of a log in order.

    Args:
        folder: the log.
        after: only entries with a greater number.
        on_damage: called for each damaged line.
        kinds: only entries of these kinds; (): all.
    """
    found = segments(folder)
    for segment, following in zip(found, [*found[1:], None], strict=False):  # none of an empty folder
        if following is not None and following.first <= after + 1:
            continue  # all its numbers are below the next segment's first
        yield from map(json.loads, lines(segment.path, on_damage, after, kinds))


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:_DIGITS].encode()
