"""Trackers: the interface through which a stage reports metrics, params, tags, artifacts and models of its run.

No tracking server is contacted here. `FileTracker` appends lines of JSON to `.tohum/tracking/<uid>.jsonl`, the record
of the run; one sender process (pipeline.tracking.sender) delivers the lines to MLflow while the stage runs, or later.
So tracking neither slows nor fails a stage: every error of it costs one printed line.
"""

import errno
import json
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pipeline import files
from pipeline.paths import QUEUE

ATTACHED = QUEUE / "attached"
"""Copies of attached files, made when they were attached: `<sha256>/<name>`."""


class NullTracker:
    """The tracker that delivers nothing: it measures working time and keeps the record. Base of `FileTracker`."""

    def __init__(self, uid: str | None = None) -> None:
        self.uid = uid or uuid.uuid4().hex
        self.record: dict[str, Any] = {}
        """Figures for reports/runs/<stage>.json: speeds, epsilon and the like."""
        self.seconds_work = 0.0
        self._uid_file: Path | None = None

    @contextmanager
    def work(self) -> Iterator[None]:
        """Adds the block's seconds to `seconds_work`: the work without start-up, imports and hashing."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds_work += time.perf_counter() - began

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Records metrics, at a step of training or (None) for the whole run."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Records settings; nested mappings become dotted names."""

    def tag(self, **tags: str) -> None:
        """Records short texts to search runs by."""

    def artifact(self, path: Path) -> None:
        """Attaches a small file (a curve, a page)."""

    def model(self, folder: Path, metrics: Mapping[str, float]) -> None:
        """Records a model that this run made or measured, by path and SHA-256 (no copy), and its metrics."""

    def page(self, path: Path, place: str = "") -> None:
        """Attaches a page to this run and, in the folder `place`, to its pipeline's run."""

    def headline(self, figures: Mapping[str, float]) -> None:
        """Records metrics of the whole pipeline, on its run: `{"base/bits_per_byte": 1.2}`."""

    def continue_in(self, state: Path) -> None:
        """Continues the run that was interrupted in this state folder, if any; call it before anything is logged.

        `<state>/run_uid` keeps the run's id until the run has finished: a later training in the same folder, with the
        same inputs, is a run of its own.
        """
        self._uid_file = state / "run_uid"
        try:
            uid = self._uid_file.read_text(encoding="ascii").strip()
            if len(uid) == 32 and uid.isalnum() and not has_finished(QUEUE / f"{uid}.jsonl"):
                self.uid = uid
                return
        except (OSError, ValueError):
            pass  # nothing to continue: this run is the first here
        try:
            files.write_text(self._uid_file, self.uid + "\n")
        except OSError as error:
            warn(error)

    def forget_uid(self) -> None:
        """Removes the id that `continue_in` kept: no later training continues this run."""
        if self._uid_file is not None:
            with suppress(OSError):
                self._uid_file.unlink(missing_ok=True)

    def close(self, status: str, figures: Mapping[str, Any]) -> None:
        """Ends the run: FINISHED, FAILED or KILLED, with the figures of its record."""


class FileTracker(NullTracker):
    """The tracker that appends a line of JSON an event to `.tohum/tracking/<uid>.jsonl`."""

    def __init__(self, start: dict[str, Any], uid: str | None = None) -> None:
        """`start` holds the fields of the first line, which is written with the first event."""
        super().__init__(uid)
        self._start: dict[str, Any] | None = start
        self._file: IO[bytes] | None = None
        self._unwritten: list[bytes] = []
        """Lines that could not be written yet (a full disk); they are written with the next line."""
        self._warned = False

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Appends metrics, non-finite ones as such; about 40 microseconds (python -m tests.bench.tracking)."""
        self._write("metrics", step=step, values={key: float(value) for key, value in metrics.items()})

    def params(self, values: Mapping[str, Any]) -> None:
        """Appends settings."""
        self._write("params", values=flat(values))

    def tag(self, **tags: str) -> None:
        """Appends tags."""
        self._write("tags", values={key: str(value) for key, value in tags.items()})

    def artifact(self, path: Path) -> None:
        """Appends an attachment and keeps a copy of the file."""
        self._attach("artifact", Path(path))

    def page(self, path: Path, place: str = "") -> None:
        """Appends an attachment of this run and of its pipeline's."""
        self._attach("artifact", Path(path))
        self._attach("page", Path(path), place=place)

    def headline(self, figures: Mapping[str, float]) -> None:
        """Appends metrics of the whole pipeline."""
        self._write("headline", values={key: float(value) for key, value in figures.items()})

    def model(self, folder: Path, metrics: Mapping[str, float]) -> None:
        """Appends a model and its metrics; hashes the whole folder."""
        try:
            sha256 = files.sha256_of(folder)
        except OSError as error:
            warn(error)
            return
        self._write(
            "model",
            name=folder.name,
            path=folder.as_posix(),
            sha256=sha256,
            values={key: float(value) for key, value in metrics.items()},
        )

    def close(self, status: str, figures: Mapping[str, Any]) -> None:
        """Appends the last line, with the numbers among the figures as metrics."""
        numbers = {
            key: float(value)
            for key, value in figures.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and key != "threads"
        }
        self._write("end", status=status, values=numbers)
        if self._file is not None:
            self._file.close()

    def _attach(self, event: str, path: Path, **fields: str) -> None:
        """Appends an attachment; a copy is kept with the queue, for the next run may replace the file."""
        try:
            sha256 = files.sha256_of(path)
            if path.is_file() and not (copy := ATTACHED / sha256 / path.name).exists():
                with files.replacing(copy) as temporary:
                    shutil.copyfile(path, temporary)
        except OSError as error:
            warn(error)
            return
        self._write(event, path=path.as_posix(), sha256=sha256, **fields)

    def _write(self, event: str, **fields: Any) -> None:
        try:
            if self._start is not None:
                opening, self._start = self._start, None
                self._unwritten.append(_line({"event": "start", "uid": self.uid, **opening}))
            self._unwritten.append(_line({"event": event, "time_ms": time.time_ns() // 1_000_000, **fields}))
            if self._file is None:
                self._file = self._open()
            while self._unwritten:
                _append(self._file, self._unwritten[0])
                del self._unwritten[0]
        except (OSError, ValueError) as error:
            if self._file is not None:
                self._file.close()
                self._file = None  # opened again by the next line, which ends the half one
            if not self._warned:
                self._warned = True
                warn(error)

    def _open(self) -> IO[bytes]:
        path = QUEUE / f"{self.uid}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab", buffering=0)
        if path.stat().st_size:
            _append(stream, b"\n")  # a killed run may have left half a line; an empty line is skipped
        return stream


def has_finished(path: Path) -> bool:
    """Whether the last start or end in a run's file is an end with status FINISHED; False where there is no file."""
    last: Any = None
    try:
        with path.open("rb") as stream:
            for line in stream:
                if line.startswith((b'{"event": "start"', b'{"event": "end"')):
                    with suppress(ValueError):
                        last = json.loads(line)
    except OSError:
        return False
    return isinstance(last, dict) and last.get("event") == "end" and last.get("status") == "FINISHED"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and texts: `{"a": {"b": 1}}` -> `{"a.b": "1"}`."""
    texts: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            texts |= flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            texts[f"{prefix}{key}"] = text
    return texts


def warn(error: Exception) -> None:
    """Prints a tracking error on one line; the stage goes on."""
    print(f"tracking: {error}; the run goes on without it", file=sys.stderr)


def _line(event: dict[str, Any]) -> bytes:
    return (json.dumps(event, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _append(stream: IO[bytes], line: bytes) -> None:
    if (written := stream.write(line)) != len(line):  # a nearly full disk takes a part
        raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes written", QUEUE.as_posix())
