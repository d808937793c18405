"""The file of a round: a snapshot of the journal (pipeline/data/snapshot.py) that grows by a line a rating.

Every line is on disk (one write, fsync) before the next prompt is shown. A kill leaves at most the start of a line at
the end, which is removed when the file is opened again. Of several lines about one request the last counts: another
rating of the same pair supersedes the first, and a line without ratings takes it back.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.data import snapshot
from pipeline.data.journal import now
from pipeline.errors import UserError
from pipeline.paths import INPUTS
from pipeline.rating.pairs import Model, Pair
from pipeline.rating.prompts import Asked

Value = int | str
"""Of a choice: 0, 1 or "tie"; of a correction: the text."""


class RatingsFile:
    """A round's file, opened for one model and one rater by `opened`."""

    def __init__(self, path: Path, descriptor: int, model: Model, rater: str, consent: str) -> None:
        """Reads what is there. Raises UserError where a line is no request, or is about another model."""
        self.path, self._descriptor, self._model = path, descriptor, model
        self._rater, self._consent = rater, consent
        self.ratings: dict[str, Mapping[str, Any]] = {}
        """Request -> the rating that stands, of this rater, in the order in which they were given."""
        self._rated: dict[str, Mapping[str, Any]] = {}
        """Request -> the line of its rating."""
        for number, line in snapshot.read(path):
            if isinstance(line, str):
                raise UserError(f"{path}: line {number}: {line}; repair or remove the file, or name another: --to")
            if line["model_sha256"] != model.sha256:
                raise UserError(
                    f"{path}: line {number} rates the model {line['model_sha256'][:12]}..., and models/{model.name} is "
                    f"{model.sha256[:12]}... now; a round rates one model: name another file, --to {INPUTS}/NAME.jsonl"
                )
            self._remember(line)

    def request_id(self, asked: Asked, seed: int) -> str:
        """The request's id: equal for the same model, rater, prompt and seed, so that a rerun knows it."""
        parts = [self._model.sha256, self._rater, str(seed), json.dumps(asked.as_json(), ensure_ascii=False)]
        digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
        return f"req-{digest[:32]}"

    def add(self, request: str, pair: Pair, form: str, value: Value) -> None:
        """Appends a rating; returns when it is on disk.

        Args:
            request: as of `request_id`.
            pair: the answers as they were shown.
            form: choice or correction.
            value: see `Value`.

        Raises:
            UserError: the disk is full or fails; the file is as before.
        """
        moment = now()
        rating = {
            "id": f"rat-{request[4:]}", "time": moment, "rater": self._rater, "form": form, "value": value,
            "consent": self._consent,
        }  # fmt: skip
        self._append(self._line(request, pair, moment) | {"ratings": [rating]})

    def take_back(self, request: str) -> None:
        """Appends a line by which a rated request has no rating. Raises UserError as `add`."""
        self._append({**self._rated[request], "time": now(), "ratings": []})

    def _line(self, request: str, pair: Pair, moment: str) -> dict[str, Any]:
        return {
            "id": request, "time": moment, "model": self._model.name, "version": None,
            "model_sha256": self._model.sha256, "task": self._model.task.spec.name, "user": self._rater,
            "consent": self._consent, "settings": pair.settings, "messages": pair.asked.as_json(),
            "answers": [
                {"text": answer.text, "ids": answer.ids, "logprobs": [round(value, 6) for value in answer.logprobs],
                 "finish": answer.finish} for answer in pair.answers
            ],
        }  # fmt: skip

    def _append(self, line: dict[str, Any]) -> None:
        content = (snapshot.dumped(line) + "\n").encode()
        size = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise UserError(
                f"{self.path}: the rating was not kept: {error.strerror}; make room, then run the command again, which "
                "continues"
            ) from None
        self._remember(line)

    def _remember(self, line: Mapping[str, Any]) -> None:
        self.ratings.pop(line["id"], None)
        self._rated.pop(line["id"], None)
        if mine := [rating for rating in line["ratings"] if rating["rater"] == self._rater]:
            self.ratings[line["id"]], self._rated[line["id"]] = mine[-1], line


@contextmanager
def opened(path: Path, model: Model, rater: str, consent: str) -> Iterator[RatingsFile]:
    """Opens or makes a round's file; removes the start of a line that a kill has left.

    Raises:
        UserError: a path outside inputs/ or of another ending, a file that another process writes, that DVC shares
            with its cache, or that holds something else.
    """
    if path.suffix != ".jsonl" or not path.resolve().is_relative_to(INPUTS.resolve()):
        raise UserError(f"{path}: expected a file {INPUTS}/NAME.jsonl, where DVC and the stage download see it")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        advice = f"; `dvc unprotect {path}` makes it a file of its own" if path.is_symlink() else ""
        raise UserError(f"{path}: cannot be written ({error.strerror}){advice}") from None
    try:
        if os.fstat(descriptor).st_nlink > 1:
            raise UserError(f"{path}: is one file with DVC's cache; `dvc unprotect {path}` makes it a file of its own")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another `tohum rate` writes to it; end it, or name another file: --to") from None
        _mend_last_line(path, descriptor)
        yield RatingsFile(path, descriptor, model, rater, consent)
    finally:
        if os.fstat(descriptor).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def round_path(folder: Path, sha256: str) -> Path:
    """The file of this model's round, `ratings-<n>.jsonl`: the first that is about it, else the first free number."""
    number = 1
    while (path := folder / f"ratings-{number}.jsonl").exists():
        first = next((line for _, line in snapshot.read(path)), None)
        if isinstance(first, dict) and first["model_sha256"] == sha256:
            return path
        number += 1
    return path


def _mend_last_line(path: Path, descriptor: int) -> None:
    """Ends a last line that an editor left without its line feed; removes one that is no whole JSON."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end == len(content):
        return
    try:
        json.loads(content[end:])
        os.write(descriptor, b"\n")
    except ValueError:
        os.ftruncate(descriptor, end)
    os.fsync(descriptor)
