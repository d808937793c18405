"""Fetches one file over HTTP: streamed, continued after a break, retried with growing pauses, checked by
sha256."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.files import sha256_of

_CHUNK = 1 << 18
_LONGEST_PAUSE_S = 60.0
_WORTH_RETRYING = {408, 425, 429, 500, 502, 503, 504}


class _BrokenError(Exception):
    """This attempt failed; another may not."""


def file_name(url: str) -> str:
    """The last part of the address' path, without percent signs; the host if there is none."""
    parts = urlsplit(url)
    return unquote(parts.path).rstrip("/").rsplit("/", 1)[-1] or parts.netloc


def fetch(url: str, sha256: str, folder: Path, *, retries: int, timeout_s: float, where: str) -> Path:
    """The file's path in `folder`, named by its hash; there already or fetched now.

    Args:
        where: the params section to name in errors.

    Raises:
        UserError: the server refuses, stays broken for `retries` further attempts, or serves other bytes.
    """
    target = folder / sha256
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{sha256}.part") as part:
        if target.is_file() and sha256_of(target) == sha256:
            return target
        _receive(url, part, sha256, retries, timeout_s, where)
        Path(part.name).replace(target)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The open part file, held by one process at a time; an empty one is removed at the end."""
    with path.open("a+b") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        try:
            yield part
        finally:
            if path.exists() and path.stat().st_size == 0:
                path.unlink()


def _receive(url: str, part: BinaryIO, sha256: str, retries: int, timeout_s: float, where: str) -> None:
    failures = 0
    while True:
        continued = part.seek(0, 2) > 0
        try:
            _attempt(url, part, timeout_s, where)
            part.flush()
            if (actual := sha256_of(Path(part.name))) == sha256:
                return
        except _BrokenError as broken:
            failures += 1
            if failures > retries:
                raise UserError(
                    f"{url}: {broken}, after {failures} attempts and {part.seek(0, 2):,} bytes; what came "
                    f"is kept and continued next time: run again, or raise {where}.retries"
                ) from None
            time.sleep(min(2.0 ** (failures - 1), _LONGEST_PAUSE_S))
            continue
        size = part.seek(0, 2)
        part.truncate(0)
        if not continued:
            raise UserError(
                f"{url}: sha256 is {actual} ({size:,} bytes); expected {sha256}: the file at this address "
                f"changed or is not the one meant; nothing of it is kept. Correct {where}.sha256 or .url"
            )


def _attempt(url: str, part: BinaryIO, timeout_s: float, where: str) -> None:
    """Appends what is missing to `part`; the caller checks the hash."""
    have = part.seek(0, 2)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout_s) as answer:
            if have and answer.status_code == 416:  # nothing is missing, or what is here is longer than the file
                return
            _require_ok(answer, url, where)
            if have and not _continues(answer, have):
                part.truncate(0)  # the server ignores Range and starts over
                have = 0
            _copy(answer, part, have, url)
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise _BrokenError(f"the connection failed ({_cause(error)})") from None
    except requests.RequestException as error:
        raise UserError(f"{url}: cannot be asked for ({error}); correct {where}.url") from None


def _require_ok(answer: requests.Response, url: str, where: str) -> None:
    if answer.status_code in (200, 206):
        return
    found = f"the server answers {answer.status_code} {answer.reason}"
    if answer.status_code in _WORTH_RETRYING:
        raise _BrokenError(found)
    raise UserError(f"{url}: {found}; expected 200: check the address in {where}.url and your right to read it")


def _continues(answer: requests.Response, have: int) -> bool:
    return answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _copy(answer: requests.Response, part: BinaryIO, have: int, url: str) -> None:
    length = answer.headers.get("Content-Length", "")
    expected = int(length) if length.isdigit() else None
    got = 0
    with tqdm(
        desc=file_name(url),
        total=expected and have + expected,
        initial=have,
        unit="B",
        unit_scale=True,
        disable=None,
        leave=False,
    ) as bar:
        for chunk in answer.raw.stream(_CHUNK, decode_content=False):
            part.write(chunk)
            got += len(chunk)
            bar.update(len(chunk))
    if expected is not None and got != expected:
        raise _BrokenError(f"the connection ended after {got:,} of {expected:,} bytes")


def _cause(error: BaseException) -> str:
    return str(error).split(": ", 1)[-1][:160]
