"""The working folder of a flow run: locked by one run at a time, its params.yaml changed for that run only.

A run that waits for a person's approval gives its slot in Prefect back, so a file is locked until the run ends.
`profile` and `set` of a run are written to params.yaml, because DVC reads only this file, and the original is put
back at the end; after a kill the next run, `make repro`, `tohum prepare` or `tohum doctor --mend` does it. The copy
lies in `.tohum/flow` until then.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pipeline import files
from pipeline.config import edit, profiles
from pipeline.errors import UserError
from pipeline.paths import FLOW, PARAMS

FOLDER = FLOW
LOCK = FOLDER / "lock"
_NEW = FOLDER / "new" / PARAMS.name
BEFORE = FOLDER / "params.before.yaml"
_WRITTEN = FOLDER / "params.written"


@contextmanager
def held(name: str) -> Iterator[None]:
    """Locks the working folder for the block; `name` appears in the error of other runs.

    Raises:
        UserError: another run holds it.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "of another process"
            raise UserError(
                f"{LOCK}: the flow run {holder} works in this folder; wait for its end, then run again"
            ) from None
        stream.truncate(0)
        stream.write(f"{name} (process {os.getpid()})")
        stream.flush()
        yield


@contextmanager
def params_of_run(names: Sequence[str], values: Mapping[str, Any]) -> Iterator[list[str]]:
    """Changes params.yaml for the block: these profiles in order, then these values at dotted paths.

    Yields sentences about a killed run's params.yaml that was put back. Needs the lock of `held`.

    Raises:
        UserError: no such profile or path, or a result that config refuses; nothing was changed then.
    """
    said = _put_back()
    if not names and not values:
        yield said
        return
    new = _changed(names, values)
    before = PARAMS.read_bytes()
    with files.replacing(BEFORE) as temporary:
        temporary.write_bytes(before)
    files.write_text(_WRITTEN, json.dumps(files.sha256_of(_NEW)))
    try:
        files.write_text(PARAMS, new)
        yield said
    finally:
        _put_back()


def write_params(names: Sequence[str], values: Mapping[str, Any]) -> None:
    """Changes params.yaml for good: these profiles in order, then these values. For a checkout of the run's own.

    Raises:
        UserError: no such profile or path, or a result that config refuses; nothing was changed then.
    """
    if names or values:
        files.write_text(PARAMS, _changed(names, values))


def _changed(names: Sequence[str], values: Mapping[str, Any]) -> str:
    """The text of params.yaml with the changes, checked."""
    files.write_text(_NEW, profiles.rendered(list(names)) if names else PARAMS.read_bytes().decode("utf-8"))
    try:
        edit.change(_NEW, dict(values))
    except UserError as error:
        raise UserError(str(error).replace(str(_NEW), PARAMS.name)) from None
    return _NEW.read_bytes().decode("utf-8")


def _put_back() -> list[str]:
    """Puts the params.yaml from before the run back, or keeps one that was edited meanwhile; sentences about it."""
    if not BEFORE.exists():
        return []
    now, written = files.sha256_of(PARAMS) if PARAMS.exists() else None, None
    with suppress(OSError, ValueError):
        written = files.read_json(_WRITTEN)
    if now in (None, written):
        BEFORE.replace(PARAMS)  # a rename: it needs no room, and the copy goes only once it is in place
        return [f"{PARAMS} is again as it was before a run with profile or set"]
    if now == files.sha256_of(BEFORE):
        BEFORE.unlink()
        return []
    kept = FOLDER / "params.kept.yaml"
    BEFORE.replace(kept)
    return [f"{PARAMS} was edited during a run and stays; the file from before the run is {kept}"]


def put_back(name: str) -> list[str]:
    """Puts back the params.yaml of a killed run; returns sentences about it. `name`: see `held`.

    Raises:
        UserError: a flow run holds the working folder.
    """
    with held(name):
        return _put_back()
