"""Journal of a served model: consented requests, ratings, late labels and erasures, durable before they are answered.

`Journal.append` returns once the entry is on disk (write and fsync); appends that wait at the same time share one fsync
(group commit). Several threads and processes may append: a lock file of the folder orders them. Format of the
files: pipeline/segments.py. Kinds of entries, with their fields:

    request   id, time, model, version, model_sha256, task, user, consent, settings, messages or text, answers, ...
    rating    id, request, time, rater, form, value, consent; the value of a choice is the index of an answer or "tie",
              of a thumb "up" or "down", of a correction the text, of an undo what it takes back (pipeline/rated.py)
    label     request, label, time, by (file, endpoint or mlflow): a label that arrives later
    erasure   user: all lines of this user were taken out before it
    export    file, file_sha256, until: all ratings up to that number (before it, without) are in that file

Users and raters are pseudonyms (`pseudonym`): an HMAC of a name or key, with a secret that the project makes once.

Room. The journal holds at most `limit_bytes`. Where it would grow over them, and for entries older than `keep_days`,
the oldest requests go first, but none that a rating not yet exported names; then ratings and labels that were exported,
the oldest first. A rating that stands and was not exported never goes: where nothing else is left, `append` refuses new
entries (`NotKeptError`) until `tohum journal export`.
"""

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline import segments
from pipeline.data import journal_rewriting as rewriting
from pipeline.data.journal_entries import TIE, now, problem
from pipeline.data.pseudonyms import is_pseudonym, pseudonym, secret
from pipeline.errors import UserError
from pipeline.files import sync
from pipeline.paths import JOURNAL
from pipeline.rated import standing, superseded
from pipeline.segments import Damage, Entry, read

__all__ = [
    "TIE",
    "Damage",
    "Entry",
    "Journal",
    "NotKeptError",
    "is_pseudonym",
    "now",
    "pseudonym",
    "read",
    "secret",
    "standing",
    "superseded",
]

LIMIT_BYTES: Final = 1 << 30
KEEP_DAYS: Final = 365
UNBOUNDED: Final = 1 << 62
"""Limit of everybody but the server, which alone knows the project's bounds."""
_SEGMENTS = 16  # a full journal has about as many
_LARGEST_SEGMENT = 16 << 20


class NotKeptError(UserError):
    """An entry that could not be made durable: nothing of it is in the journal."""


class _Waiting:
    """An entry between `append` and its commit."""

    def __init__(self, name: str, kind: str, fields: bytes) -> None:
        self.name = name
        self.fields = fields
        self.frees = kind in ("export", "erasure")
        """Whether the journal can give room after it, so it is kept beyond the limit."""
        self.done = False
        self.error: OSError | None = None


@dataclass
class _Open:
    """The last segment, as this process has it open."""

    path: Path
    descriptor: int
    size: int
    next: int
    """Number of the next entry."""


class Journal:
    """The journal of one folder; thread safe, and safe beside other processes."""

    def __init__(self, folder: Path = JOURNAL, limit_bytes: int = LIMIT_BYTES, keep_days: int = KEEP_DAYS) -> None:
        """Opens or makes the folder, and drops what a kill left of an unfinished line.

        Args:
            folder: the segments' folder.
            limit_bytes: size of all segments together, at most.
            keep_days: age after which requests and exported ratings are dropped; 0: never.

        Raises:
            UserError: the folder cannot be written.
        """
        self.folder = folder
        self._limit, self._keep_days = limit_bytes, keep_days
        self._segment_bytes = max(1 << 12, min(_LARGEST_SEGMENT, limit_bytes // _SEGMENTS))
        self._queue: list[_Waiting] = []
        self._queue_lock, self._commit_lock = threading.Lock(), threading.Lock()
        self._open: _Open | None = None
        self._sealed_bytes = 0
        self._lock = -1
        self._generation = 0
        """Number of changes to the set of segments that this process knows of."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._commit_lock, self._exclusive():
                self._current()
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); the server keeps its journal there"
            ) from None

    def append(self, entry: Entry) -> None:
        """Appends an entry; returns when it is on disk. A missing `time` is now.

        Raises:
            NotKeptError: the disk is full or fails, or the journal is; nothing of the entry is kept.
            ValueError: an unknown kind, a missing field, or a value that JSON lacks.
        """
        if fault := problem(entry):
            raise ValueError(f"journal entry {entry.get('kind')}: {fault}")
        entry = {"kind": entry["kind"], "time": now(), **entry}
        waiting = _Waiting(entry.get("id") or entry["kind"], entry["kind"], segments.body(entry))
        with self._queue_lock:
            self._queue.append(waiting)
        with self._commit_lock:  # the thread that gets here first commits for all that wait
            if not waiting.done:
                self._commit()
        if waiting.error is not None:
            why = waiting.error.strerror or str(waiting.error)
            raise NotKeptError(f"{self.folder}: {waiting.name} was not kept: {why}; make room, then send it again")

    def erase(self, user: str) -> int:
        """Takes out all requests and ratings of a user, and what others said of these requests; appends an erasure.

        Every segment is replaced as a whole: a kill in between leaves each either as it was or without the user, and a
        second call finishes.

        Args:
            user: a pseudonym.

        Returns:
            The number of entries taken out.

        Raises:
            NotKeptError: the disk is full or fails.
        """
        with self._commit_lock, self._exclusive():
            try:
                current = self._current()
                if current.size:  # numbers of erased lines are not used again
                    current = self._begin(current.next)
                self._announce()
                erased = rewriting.without(self.folder, rewriting.of_user(self.folder, user), user)
                self._forget()
            except OSError as error:
                raise NotKeptError(
                    f"{self.folder}: {user} was not erased: {error.strerror}; make room, then repeat"
                ) from None
        self.append({"kind": "erasure", "user": user})
        return erased

    def close(self) -> None:
        """Closes the open segment; a later append opens it again."""
        with self._commit_lock:
            self._forget()

    def _commit(self) -> None:
        """Writes all waiting entries with one fsync; on an error none of them is kept."""
        with self._queue_lock:
            batch, self._queue = self._queue, []
        try:
            with self._exclusive():
                self._write(batch)
        except BaseException as error:  # also a fault of ours: none of the waiting threads may take it for a success
            for waiting in batch:
                waiting.error = error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")
            if not isinstance(error, OSError):
                raise
        finally:
            for waiting in batch:
                waiting.done = True

    def _write(self, batch: list[_Waiting]) -> None:
        current = self._current()
        length = sum(len(waiting.fields) + segments.OVERHEAD for waiting in batch)
        full = self._sealed_bytes + current.size + length > self._limit
        grown = current.path.name[:10] != now()[:10] or current.size + length > self._segment_bytes
        if full or (grown and current.size):
            if current.size:
                current = self._begin(current.next)
            self._make_room(length)
        over = self._sealed_bytes + current.size + length > self._limit
        if over and not any(waiting.frees for waiting in batch):
            raise OSError(
                f"the journal has reached its limit of {self._limit} bytes with ratings that were not exported, and "
                "their requests; `tohum journal export` lets them go"
            )
        content = b"".join(segments.sealed(current.next + i, waiting.fields) for i, waiting in enumerate(batch))
        try:
            _write_all(current.descriptor, content)
            os.fsync(current.descriptor)
        except OSError:
            try:
                os.ftruncate(current.descriptor, current.size)  # how much of it reached the disk is unknown
            finally:
                self._forget()
            raise
        current.size += len(content)
        current.next += len(batch)

    def _current(self) -> _Open:
        """The last segment, opened again where another process has written, rewritten or rotated since."""
        known = self._open
        if (
            known is not None
            and self._generation == self._read_generation()
            and os.fstat(known.descriptor).st_size == known.size
        ):
            return known
        self._forget()
        self._generation = self._read_generation()
        found = segments.segments(self.folder)
        if not found:
            return self._begin(1)
        last = found[-1]
        self._sealed_bytes = _size_of(found[:-1])
        size, following = segments.end_of(last)
        descriptor = os.open(last.path, os.O_WRONLY | os.O_APPEND)
        self._open = _Open(last.path, descriptor, size, following)
        if os.fstat(descriptor).st_size > size:  # half a line, which was never acknowledged
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        return self._open

    def _begin(self, first: int) -> _Open:
        """Makes a new last segment."""
        self._announce()
        path = self.folder / segments.name(now()[:10], first)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        sync(self.folder)
        self._forget()
        self._open = _Open(path, descriptor, 0, first)
        self._sealed_bytes = _size_of(segments.segments(self.folder)[:-1])
        return self._open

    def _forget(self) -> None:
        if self._open is not None:
            os.close(self._open.descriptor)
            self._open = None

    def _make_room(self, length: int) -> None:
        """Drops what is too old, and the oldest entries where the next segment would not fit."""
        surplus = self._sealed_bytes + max(length, self._segment_bytes) - self._limit
        if gone := rewriting.droppable(self.folder, surplus, self._keep_days):
            self._announce()
            rewriting.without(self.folder, gone)
            self._sealed_bytes = _size_of(segments.segments(self.folder)[:-1])

    def _announce(self) -> None:
        """Tells other processes, before it happens, that the set of segments or a written one changes."""
        self._generation = self._read_generation() + 1
        os.pwrite(self._lock, b"%020d" % self._generation, 0)

    def _read_generation(self) -> int:
        content = os.pread(self._lock, 20, 0)
        return int(content) if content.isdigit() else 0  # a power cut may leave zeros; no process outlives one

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Holds the folder's lock, which the kernel gives back when the process ends."""
        self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(self._lock)


def _size_of(found: Iterable[segments.Segment]) -> int:
    return sum(segment.path.stat().st_size for segment in found)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
