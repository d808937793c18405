"""Entries of the journal that are taken out: of an erased user, and the oldest where room or time is up.

A segment is rewritten under another name and renamed, so it is there as it was or without the entries.
"""

import json
import os
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline import segments
from pipeline.files import sync

_ID = re.compile(rb'"id": "([^"]+)"')


def of_user(folder: Path, user: str) -> set[int]:
    """Numbers of a user's requests and ratings, and of the ratings and labels that others gave to these requests."""
    requests = {match[1].decode() for line in _raw(folder) if _is_of(line, user) and (match := _ID.search(line))}
    gone = set()
    for entry in segments.read(folder, on_damage=_quietly):
        own = entry["kind"] in ("request", "rating") and user in (entry.get("user"), entry.get("rater"))
        if own or (entry["kind"] in ("rating", "label") and entry["request"] in requests):
            gone.add(entry["n"])
    return gone


def exported_until(entry: segments.Entry) -> int:
    """Number of the last entry that the file of an `export` holds; ratings may arrive while it is written."""
    return int(entry["until"] if "until" in entry else entry["n"])


def droppable(folder: Path, surplus: int, keep_days: int) -> set[int]:
    """Numbers of the entries to drop for age, and of the oldest ones until `surplus` bytes are freed.

    Requests that no unexported rating names go first, then exported ratings and labels, each the oldest first. The
    last segment, which is written, stays.

    Args:
        folder: the journal.
        surplus: bytes to free; 0 or less: none.
        keep_days: age in days after which entries go; 0: never.
    """
    found = segments.segments(folder)
    exported, needed, sizes = 0, set(), []
    waiting: list[tuple[int, str]] = []
    for segment in found:
        for line in segments.lines(segment.path, _quietly):
            number, kind = segments.head(line)
            if kind == "export":
                exported = max(exported, exported_until(json.loads(line)))
            if kind == "rating":
                waiting.append((number, json.loads(line)["request"]))
            if segment is not found[-1]:
                sizes.append((number, kind, len(line), segment.date))
    needed = {request for number, request in waiting if number > exported}
    oldest = (datetime.now(UTC) - timedelta(days=keep_days)).date().isoformat() if keep_days else ""
    if surplus <= 0 and not any(date < oldest for *_, date in sizes):
        return set()
    kept = {number for number, request in _requests(folder) if request in needed}
    order = [one for one in sizes if one[1] == "request" and one[0] not in kept]
    order += [one for one in sizes if one[1] in ("rating", "label") and one[0] <= exported]
    gone, freed = set(), 0
    for number, _, size, date in order:
        if date < oldest or freed < surplus:
            gone.add(number)
            freed += size
    return gone


def without(folder: Path, gone: Collection[int], user: str | None = None) -> int:
    """Rewrites the segments that hold one of these entries, or a damaged line with the name of `user`.

    The last segment stays, which is empty or whose numbers are to come. Other damaged lines stay.

    Returns:
        The number of lines taken out.
    """
    taken = 0
    for left in folder.glob(".*.tmp"):  # of a killed process; it may hold lines of someone who is erased now
        left.unlink()
    for segment in segments.segments(folder)[:-1]:
        content = segment.path.read_bytes().splitlines(keepends=True)
        kept = [line for line in content if not _goes(line, gone, user)]
        taken += len(content) - len(kept)
        if not kept:
            segment.path.unlink()
        elif len(kept) < len(content):
            _replace(segment.path, b"".join(kept))
    if taken:
        sync(folder)
    return taken


def _raw(folder: Path) -> Iterator[bytes]:
    """All lines, damaged ones too."""
    for segment in segments.segments(folder):
        with segment.path.open("rb") as stream:
            yield from stream


def _is_of(line: bytes, user: str) -> bool:
    """Whether a line, damaged or not, is a request of this user."""
    return f'"user": "{user}"'.encode() in line and segments.head(line)[1] == "request"


def _goes(line: bytes, gone: Collection[int], user: str | None) -> bool:
    if segments.head(line)[0] in gone:
        return True
    return user is not None and user.encode() in line and not segments.is_whole(line)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _requests(folder: Path) -> list[tuple[int, str]]:
    """Number and id of every request."""
    found: list[tuple[int, str]] = []
    for segment in segments.segments(folder):
        for line in segments.lines(segment.path, _quietly):
            number, kind = segments.head(line)
            if kind == "request":
                found.append((number, json.loads(line)["id"]))
    return found


def _quietly(_: Any) -> None:
    """Damaged lines are named by readers of content."""
