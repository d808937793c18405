"""Backup and restore of the stack: one tar file with a dump of each database, MLflow's files, and the secrets.

The dumps come first: a file that a dumped record names was written before the record, so it is in the copy made after
it. A restore sets the old stack aside under another name and puts it back where it fails; after it has succeeded the
old stack stays there. The file holds passwords and is readable by its owner alone.
"""

import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import files
from pipeline.errors import UserError
from pipeline.orchestration import stack, stack_postgres
from pipeline.orchestration.stack_supervisor import Running
from pipeline.paths import SECRETS, STACK
from pipeline.tracking import credentials

_FORM = "tohum-stack-1"
_CONTENTS = "contents.json"


def backup(target: Path) -> str:
    """Writes the backup of the running stack; returns a sentence.

    Raises:
        UserError: PostgreSQL does not answer, or the file is there already.
    """
    if target.exists():
        raise UserError(f"{target}: is there already; name another file")
    if not stack_postgres.ready():
        raise UserError("PostgreSQL does not answer; a backup is made of a running stack: tohum stack up")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STACK, prefix="backup-") as folder:
        place = Path(folder)
        for name in stack_postgres.DATABASES:
            stack_postgres.dump(name, place / f"{name}.dump")
        if stack.ARTIFACTS.is_dir():
            _copy_growing(stack.ARTIFACTS, place / "artifacts")
        (place / "secrets").mkdir(mode=0o700)
        for name in stack.SECRETS_OF_STACK:
            credentials.secret(name)
            shutil.copy2(SECRETS / name, place / "secrets" / name)
        sums = {
            path.relative_to(place).as_posix(): files.sha256_of(path) for path in place.rglob("*") if path.is_file()
        }
        files.write_json(place / _CONTENTS, {"form": _FORM, "sha256": sums})
        with files.replacing(target) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as archive:
                archive.add(place, arcname=".")
            files.sync(temporary)
    return f"{target}: {len(sums)} files, {target.stat().st_size:,} bytes; it holds passwords"


def restore(source: Path) -> str:
    """Puts a backup in place of the stack, which must be down; returns a sentence.

    Raises:
        UserError: the stack runs, or the file is none of `backup`, damaged or incomplete. Nothing is changed then.
    """
    if stack.supervisor() is not None:
        raise UserError("the stack runs; tohum stack down first")
    stack.stop_left_postgres()
    with tempfile.TemporaryDirectory(dir=_parent(), prefix="restore-") as folder:
        place = Path(folder)
        _unpack(source, place)
        kept = _set_aside()
        try:
            _rebuild(place)
        except BaseException:
            shutil.rmtree(STACK, ignore_errors=True)
            if kept is not None:
                _put_back(kept)
            raise
    more = f"; the stack from before is {kept[0]}" if kept else ""
    return f"restored from {source}{more}; tohum stack up starts it"


def _rebuild(place: Path) -> None:
    """Makes secrets, cluster, databases and files from an unpacked backup."""
    SECRETS.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (place / "secrets").iterdir():
        descriptor = os.open(SECRETS / path.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(path.read_bytes())
    STACK.mkdir(parents=True)
    stack_postgres.make()
    with _database():
        stack_postgres.make_databases()
        for name in stack_postgres.DATABASES:
            stack_postgres.restore(name, place / f"{name}.dump")
    if (place / "artifacts").is_dir():
        shutil.move(place / "artifacts", stack.ARTIFACTS)


@contextmanager
def _database() -> Iterator[None]:
    """PostgreSQL alone, for the block."""
    import signal

    one = Running(stack.services()[0])
    one.start()
    try:
        ends = time.monotonic() + 120
        while not stack_postgres.ready():
            if time.monotonic() > ends or one.process is None or one.process.poll() is not None:
                raise UserError(f"PostgreSQL does not start; see {one.service.log}")
            time.sleep(0.2)
        yield
    finally:
        one.stop(signal.SIGINT)


def _unpack(source: Path, place: Path) -> None:
    """Unpacks and compares every file with its hash."""
    try:
        with tarfile.open(source) as archive:
            archive.extractall(place, filter="data")
        contents = files.read_json(place / _CONTENTS)
        form, sums = contents["form"], dict(contents["sha256"])
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: no backup of `tohum stack backup`, or damaged: {error}") from None
    if form != _FORM:
        raise UserError(f"{source}: a backup of the form {form}, expected {_FORM}")
    missing = {f"{name}.dump" for name in stack_postgres.DATABASES} - set(sums)
    wrong = [name for name, sha256 in sums.items() if not _equals(place / name, sha256)]
    if missing or wrong:
        raise UserError(f"{source}: damaged: {', '.join(sorted(missing) + wrong[:3])}; take another backup")


def _equals(path: Path, sha256: str) -> bool:
    return path.is_file() and files.sha256_of(path) == sha256


def _set_aside() -> tuple[Path, Path] | None:
    """Renames the present stack and keeps its secrets beside it; None where there is none."""
    if not STACK.exists():
        return None
    kept = STACK.with_name(f"stack.before-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    STACK.rename(kept)
    secrets = kept / "secrets"
    secrets.mkdir(mode=0o700, exist_ok=True)
    for name in stack.SECRETS_OF_STACK:
        if (SECRETS / name).is_file():
            shutil.copy2(SECRETS / name, secrets / name)
    return kept, secrets


def _put_back(kept: tuple[Path, Path]) -> None:
    folder, secrets = kept
    for path in secrets.iterdir():
        shutil.copy2(path, SECRETS / path.name)
    folder.rename(STACK)


def _copy_growing(source: Path, target: Path) -> None:
    """Copies a folder in which files may appear and vanish meanwhile."""
    for path in sorted(source.rglob("*")):
        goal = target / path.relative_to(source)
        try:
            if path.is_dir():
                goal.mkdir(parents=True, exist_ok=True)
            else:
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, goal)
        except FileNotFoundError:
            continue


def _parent() -> Path:
    STACK.parent.mkdir(parents=True, exist_ok=True)
    return STACK.parent
