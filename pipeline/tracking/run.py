"""What a stage says about its run: metrics, params, tags, artifacts, models, and a record of what it cost.

    with tracking.stage("pretrain", params) as run:
        with run.work():
            for step in fit(...):
                run.log({"loss_nats": step.loss}, step=step.number)
        run.record["tokens_per_second"] = speed

No tracker is imported here. A run appends lines of JSON to `.tohum/tracking/<uid>.jsonl`, which is the truth;
one sender process (pipeline.tracking.sender) delivers them to MLflow while the stage runs, or later. So tracking can
neither slow nor fail a stage: whatever goes wrong costs one printed line. At the end
`reports/runs/<stage>.json` holds the record.
"""

import errno
import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from pipeline import files
from pipeline.config.params import Params
from pipeline.paths import CODE, QUEUE, RUNS
from pipeline.tracking import lineage
from pipeline.tracking.cost import Meter, process_started

SENDER_LOCK = QUEUE / "sender.lock"
ATTACHED = QUEUE / "attached"
"""Copies of attached files as they were when the run named them: `<sha256>/<name>`."""
# Where a stage's own settings stand in params.yaml when the section is not called like the stage.
_SECTIONS = {"evaluate": "evaluations", "validate": "gates", "validate-model": "evaluations"}


class Tracker(Protocol):
    """What library code may say about a run; it never learns who listens."""

    record: dict[str, Any]

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Records numbers, at a step of training or (None) for the whole run."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Records settings; nested mappings become dotted names."""

    def tag(self, **tags: str) -> None:
        """Records short texts to search runs by."""

    def artifact(self, path: Path) -> None:
        """Attaches a small file (a curve, a page); it is copied when delivered."""

    def model(self, folder: Path, metrics: Mapping[str, float]) -> None:
        """Names a model this run made, by path and SHA-256 (no copy), and the numbers it reached."""

    def page(self, path: Path, place: str = "") -> None:
        """Attaches a page to this run and, in the folder `place`, to its pipeline's run."""

    def headline(self, figures: Mapping[str, float]) -> None:
        """Records numbers of the whole pipeline, on its run: `{"base/bits_per_byte": 1.2}`."""

    def continue_in(self, state: Path) -> None:
        """Continues the run that was interrupted in this state folder, if any; before anything is logged."""


class NullTracker:
    """Listens to nobody; still measures work and keeps the record."""

    def __init__(self, uid: str | None = None) -> None:
        self.uid = uid or uuid.uuid4().hex
        self.record: dict[str, Any] = {}
        self.seconds_work = 0.0
        self._kept: Path | None = None

    @contextmanager
    def work(self) -> Iterator[None]:
        """Adds the block's seconds to `seconds_work`: the work without start-up, imports and hashing."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds_work += time.perf_counter() - began

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """See Tracker."""

    def params(self, values: Mapping[str, Any]) -> None:
        """See Tracker."""

    def tag(self, **tags: str) -> None:
        """See Tracker."""

    def artifact(self, path: Path) -> None:
        """See Tracker."""

    def model(self, folder: Path, metrics: Mapping[str, float]) -> None:
        """See Tracker."""

    def page(self, path: Path, place: str = "") -> None:
        """See Tracker."""

    def headline(self, figures: Mapping[str, float]) -> None:
        """See Tracker."""

    def continue_in(self, state: Path) -> None:
        """See Tracker. `<state>/run_uid` keeps the id until the run has finished: what trains here after that, with
        the same inputs, is a run of its own.
        """
        self._kept = state / "run_uid"
        try:
            known = self._kept.read_text(encoding="ascii").strip()
            if len(known) == 32 and known.isalnum() and not has_finished(QUEUE / f"{known}.jsonl"):
                self.uid = known
                return
        except (OSError, ValueError):
            pass  # nothing to continue: this run is the first here
        try:
            files.write_text(self._kept, self.uid + "\n")
        except OSError as error:
            _complain(error)

    def forget(self) -> None:
        """Ends what `continue_in` began: nothing continues this run any more."""
        if self._kept is not None:
            with suppress(OSError):
                self._kept.unlink(missing_ok=True)


class Run(NullTracker):
    """Appends what it is told to `.tohum/tracking/<uid>.jsonl`, a line each, for the sender to deliver."""

    def __init__(self, start: dict[str, Any], uid: str | None = None) -> None:
        super().__init__(uid)
        self._start: dict[str, Any] | None = start
        self._file: IO[bytes] | None = None
        self._waiting: list[bytes] = []
        """Lines that could not be written yet (a full disk): the next line takes them along."""
        self._complained = False

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """See Tracker. About 40 microseconds; non-finite numbers are kept as such."""
        self._write("metrics", step=step, values={key: float(value) for key, value in metrics.items()})

    def params(self, values: Mapping[str, Any]) -> None:
        """See Tracker."""
        self._write("params", values=flat(values))

    def tag(self, **tags: str) -> None:
        """See Tracker."""
        self._write("tags", values={key: str(value) for key, value in tags.items()})

    def artifact(self, path: Path) -> None:
        """See Tracker."""
        self._attach("artifact", Path(path))

    def page(self, path: Path, place: str = "") -> None:
        """See Tracker."""
        self._attach("artifact", Path(path))
        self._attach("page", Path(path), place=place)

    def headline(self, figures: Mapping[str, float]) -> None:
        """See Tracker."""
        self._write("headline", values={key: float(value) for key, value in figures.items()})

    def model(self, folder: Path, metrics: Mapping[str, float]) -> None:
        """See Tracker."""
        try:
            sha256 = files.sha256_of(folder)
        except OSError as error:
            _complain(error)
            return
        self._write(
            "model",
            name=folder.name,
            path=folder.as_posix(),
            sha256=sha256,
            values={key: float(value) for key, value in metrics.items()},
        )

    def close(self, status: str, values: Mapping[str, Any]) -> None:
        """Writes the last line: FINISHED, FAILED or KILLED, and the numbers of the record as metrics."""
        numbers = {
            key: float(value)
            for key, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and key != "threads"
        }
        self._write("end", status=status, values=numbers)
        if self._file is not None:
            self._file.close()

    def _attach(self, event: str, path: Path, **fields: str) -> None:
        """Says that a file belongs to the run; a copy is kept with the queue, for the next run may replace the file."""
        try:
            sha256 = files.sha256_of(path)
            if path.is_file() and not (copy := ATTACHED / sha256 / path.name).exists():
                with files.replacing(copy) as temporary:
                    shutil.copyfile(path, temporary)
        except OSError as error:
            _complain(error)
            return
        self._write(event, path=path.as_posix(), sha256=sha256, **fields)

    def _write(self, event: str, **fields: Any) -> None:
        try:
            if self._start is not None:
                opening, self._start = self._start, None
                self._waiting.append(_line({"event": "start", "uid": self.uid, **opening}))
            self._waiting.append(_line({"event": event, "time_ms": time.time_ns() // 1_000_000, **fields}))
            if self._file is None:
                self._file = self._open()
            while self._waiting:
                _put(self._file, self._waiting[0])
                del self._waiting[0]
        except (OSError, ValueError) as error:
            if self._file is not None:
                self._file.close()
                self._file = None  # opened again by the next line, which ends the half one
            if not self._complained:
                self._complained = True
                _complain(error)

    def _open(self) -> IO[bytes]:
        path = QUEUE / f"{self.uid}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab", buffering=0)
        if path.stat().st_size:
            _put(stream, b"\n")  # a killed run may have left half a line; an empty line is skipped
        return stream


@contextmanager
def stage(name: str, params: Params, *, tags: Mapping[str, str] | None = None) -> Iterator[NullTracker]:
    """One run of one stage; `name` is DVC's (`pretrain`, `finetune@spam-lora`).

    Writes reports/runs/<name>.json at the end, however the block ends: FINISHED, FAILED, or KILLED when
    interrupted. With runtime.tracking.enabled the lines go to MLflow through the sender, which is started if
    none runs.
    """
    compute, settings = params.compute, params.runtime.tracking
    meter = Meter(compute.device)
    own = NullTracker()
    pipeline = lineage.pipeline_uid() or own.uid
    run: NullTracker = own
    if settings.enabled:
        everything = {"pipeline_params": flat(params.model_dump(by_alias=True, exclude={"runtime"}))}
        run = Run(_opening(name, pipeline, params, tags or {}) | everything)
        start_sender()
    began, status = time.time(), "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit) as error:
        status = _exit_status(error)
        raise
    finally:
        record = _plain(run.record) | {
            "stage": name,
            "run_uid": run.uid,
            "pipeline_uid": pipeline,
            "status": status,
            "started": _utc(began),
            "ended": _utc(time.time()),
            "seconds_work": round(run.seconds_work, 3),
            "device": compute.device,
            "threads": compute.threads,
            **meter.read(),
        }
        _finish(run, name, status, record)


@contextmanager
def beside(kind: str, name: str, params: Params, search_uid: str, tags: Mapping[str, str]) -> Iterator[NullTracker]:
    """One run beside the graph, in no pipeline and without a record in reports/runs.

    Args:
        kind: `search`, whose run is `search_uid` itself, however often it is continued; or `trial`, a run below it.
        name: how it is shown.
    """
    uid = search_uid if kind == "search" else None
    run = NullTracker(uid)
    if params.runtime.tracking.enabled:
        run = Run(_opening(name, search_uid, params, tags) | {"kind": kind}, uid)
        start_sender()
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit) as error:
        status = _exit_status(error)
        raise
    except Exception as error:
        run.tag(**{"tohum.error": str(error)})
        raise
    finally:
        if isinstance(run, Run):
            run.close(status, _plain(run.record))


def start_sender() -> None:
    """Starts the sender in a session of its own unless one already holds the lock; problems cost one line."""
    try:
        QUEUE.mkdir(parents=True, exist_ok=True)
        with SENDER_LOCK.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
        with (QUEUE / "sender.log").open("ab") as log:
            paths = [str(CODE), os.environ.get("PYTHONPATH", "")]
            settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
            subprocess.Popen(
                [sys.executable, "-m", "pipeline.tracking.sender"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | settings,
            )
    except OSError as error:
        _complain(error)


def has_finished(path: Path) -> bool:
    """Whether the last word in a run's file is that it finished; False where there is no such file."""
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
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            found[f"{prefix}{key}"] = text
    return found


def _opening(name: str, pipeline: str, params: Params, tags: Mapping[str, str]) -> dict[str, Any]:
    settings = params.runtime.tracking
    _, _, recipe = name.partition("@")
    described = {"tohum.stage": name, "tohum.device": params.compute.device, **lineage.git_state()}
    if recipe:
        described["tohum.recipe"] = recipe
    described |= {f"dvc.in.{path}": digest for path, digest in lineage.dvc_inputs(name).items()}
    described |= {f"gate.{gate}": words for gate, words in lineage.gate_verdicts().items()}
    return {
        "time_ms": time.time_ns() // 1_000_000,
        "stage": name,
        "pipeline_uid": pipeline,
        "pid": os.getpid(),
        "process_started": process_started(),
        "uri": settings.uri,
        "experiment": settings.experiment,
        "tags": described | dict(tags),
        "params": flat(_own_params(name, params)),
    }


def _own_params(name: str, params: Params) -> dict[str, Any]:
    """The sections that this stage reads: compute, and its own by name."""
    verb, _, key = name.partition("@")
    section = getattr(params, _SECTIONS.get(verb, verb), None)
    if key and isinstance(section, dict):
        section = section.get(key)
    found = {"compute": params.compute.model_dump(by_alias=True)}
    if section is not None:
        found[verb] = section.model_dump(by_alias=True) if hasattr(section, "model_dump") else dict(section)
    return found


def _finish(run: NullTracker, name: str, status: str, record: dict[str, Any]) -> None:
    try:
        files.write_json(RUNS / f"{name}.json", record)
    except (OSError, ValueError, TypeError) as error:
        _complain(error)
    if isinstance(run, Run):
        run.close(status, record)
    if status == "FINISHED":
        run.forget()
    if isinstance(run, Run):
        start_sender()  # the one seen at the start may have gone home while a long stage said nothing


def _exit_status(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "KILLED"
    code = error.code if isinstance(error, SystemExit) else 1
    if code in (None, 0):
        return "FINISHED"
    return "KILLED" if isinstance(code, int) and code >= 128 else "FAILED"


def _plain(value: Any) -> Any:
    """JSON's own types; a number of numpy or torch becomes a float, a non-finite one null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else None


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _put(stream: IO[bytes], line: bytes) -> None:
    if (written := stream.write(line)) != len(line):  # a nearly full disk takes a part
        raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes written", QUEUE.as_posix())


def _complain(error: Exception) -> None:
    print(f"tracking: {error}; the run goes on without it", file=sys.stderr)
