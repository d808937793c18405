"""Atomic writes of files and folders: temporary name, fsync, rename; and SHA-256 of both.

All outs of stages are written here, so a full disk, a kill or a power cut never leaves a partial file under its real
name, and equal content gives equal bytes.
"""

import fcntl
import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 1 << 20
SETTLED_S = 2.0
_known: dict[tuple[int, ...], str] = {}
"""(device, inode, size, times) -> hash of files read in this process: inputs are verified and later named by hash."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` if the block succeeds, else removes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not _writes(left):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _writes(temporary: Path) -> bool:
    """Whether the process that made a temporary file still runs; a killed process leaves its file behind."""
    number = temporary.name.split(".")[-2]
    if not number.isdecimal():
        return True
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path`; replaces `path` by it if the block succeeds, else removes it.

    A kill between the two renames of the swap leaves the old folder under `kept_aside(path)`. The names have no process
    id, so that the next process removes the leftovers of a killed one.

    Raises:
        UserError: another process is writing the same folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, aside = path.with_name(f".{path.name}.new.tmp"), kept_aside(path)
    with _fresh(temporary, path):
        try:
            yield temporary
            _flush(temporary)
            if path.exists() or path.is_symlink():
                remove(aside)
                path.replace(aside)
            temporary.replace(path)
            with suppress(OSError):  # the new folder is in place already
                sync(path.parent)
            remove(aside)
        except BaseException:
            if aside.exists() and not path.exists():  # interrupted between the two renames
                aside.replace(path)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _fresh(temporary: Path, path: Path) -> Iterator[None]:
    """Makes `temporary` an empty folder under a kernel lock, which ends with the process."""
    busy = f"{path}: another process is writing it; wait for its end or stop it, then run again"
    for _ in range(3):  # a leftover folder of a killed process is removed under its lock, then made anew
        left = not _made(temporary)
        try:
            handle = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise UserError(busy) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UserError(busy) from None
        locked = temporary.is_dir() and os.path.samestat(os.fstat(handle), temporary.stat())
        if left or not locked:  # not locked: another process removed it as a leftover between mkdir and flock
            if locked:
                shutil.rmtree(temporary)
            os.close(handle)
            continue
        try:
            yield
        finally:
            os.close(handle)
        return
    raise UserError(busy)


def _made(folder: Path) -> bool:
    """Whether the folder is new; a file or a link in its place is removed first."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _flush(folder: Path) -> None:
    """Flushes a folder's files to the disk, so that they survive a power cut after the rename."""
    for name in [folder, *folder.rglob("*")]:
        if not name.is_symlink():
            sync(name)


def sync(path: Path) -> None:
    """Flushes a file, or a folder's list of names, to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def kept_aside(path: Path) -> Path:
    """The path of the old folder during the swap of `replace_folder`."""
    return path.with_name(f".{path.name}.old.tmp")


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text; line ends are not converted."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON with sorted keys, so that equal values give equal bytes. Refuses NaN and infinity."""
    write_text(path, json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file written by `write_json`."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_table(path: Path, table: "pa.Table") -> None:
    """Writes an Arrow table as zstd parquet; equal tables give equal bytes."""
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=1 << 16)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's sorted (relative name, file hash) list; hexadecimal.

    A file is read once per process while its inode, size and times stay the same.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if key in _known:
            return _known[key]
        # File times have a resolution of milliseconds: a file changed just now may change again with the same times
        # (git's racily clean entries), so only the hash of a settled file is kept. ctime cannot be set back.
        settled = time.time() - status.st_ctime > SETTLED_S
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    if settled:
        _known[key] = digest.hexdigest()
    return digest.hexdigest()
