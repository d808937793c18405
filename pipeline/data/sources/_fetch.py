"""HTTP download of one file: streamed, resumed, retried with exponential backoff, checked by SHA-256."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


class _TransientError(Exception):
    """A failed attempt that is worth a retry."""


@dataclass(frozen=True)
class Download:
    """A file to fetch and how persistently."""

    url: str
    sha256: str
    retries: int
    """Further attempts after a failed one."""
    timeout_s: float
    where: str
    """The section of params.yaml in errors, such as download.sources.sms."""


def file_name(url: str) -> str:
    """The last part of the URL's path, percent-decoded; the host where the path is empty."""
    parts = urlsplit(url)
    return unquote(parts.path).rstrip("/").rsplit("/", 1)[-1] or parts.netloc


def fetch(download: Download, folder: Path) -> Path:
    """Path of the file in `folder`, named by its hash; downloads it unless it is there.

    Raises:
        UserError: the server refuses, fails in all attempts, or serves other bytes.
    """
    target = folder / download.sha256
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{download.sha256}.part") as part:
        if target.is_file() and sha256_of(target) == download.sha256:
            return target
        _receive(download, part)
        Path(part.name).replace(target)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The open part file under a lock; an empty one is removed at the end."""
    with path.open("a+b") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        try:
            yield part
        finally:
            if path.exists() and path.stat().st_size == 0:
                path.unlink()


def _receive(download: Download, part: BinaryIO) -> None:
    """Completes `part` in as many attempts as allowed, until it has the hash."""
    url, failures = download.url, 0
    while True:
        resumed = part.seek(0, 2) > 0
        try:
            _attempt(download, part)
            part.flush()
            if (actual := sha256_of(Path(part.name))) == download.sha256:
                return
        except _TransientError as error:
            failures += 1
            if failures > download.retries:
                raise UserError(
                    f"{url}: {error}, after {failures} attempts and {part.seek(0, 2):,} bytes, which are kept and "
                    f"resumed next time: run again, or raise {download.where}.retries"
                ) from None
            time.sleep(min(2.0 ** (failures - 1), _LONGEST_PAUSE_S))
            continue
        size = part.seek(0, 2)
        part.truncate(0)
        if not resumed:
            raise UserError(
                f"{url}: sha256 is {actual} ({size:,} bytes); expected {download.sha256}: the file at this address "
                f"changed or is another one; nothing of it is kept. Correct {download.where}.sha256 or .url"
            )


def _attempt(download: Download, part: BinaryIO) -> None:
    """Appends the missing bytes to `part`; the caller checks the hash."""
    url, present = download.url, part.seek(0, 2)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={present}-"} if present else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=download.timeout_s) as response:
            if present and response.status_code == 416:  # no bytes are missing, or the part is longer than the file
                return
            _require_ok(response, download)
            if present and not _resumes(response, present):
                part.truncate(0)  # the server ignores Range and sends the whole file
                present = 0
            _copy(response, part, present, url)
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise _TransientError(f"the connection failed ({_cause(error)})") from None
    except requests.RequestException as error:
        raise UserError(f"{url}: cannot be requested ({error}); correct {download.where}.url") from None


def _require_ok(response: requests.Response, download: Download) -> None:
    if response.status_code in (200, 206):
        return
    status = f"the server answers {response.status_code} {response.reason}"
    if response.status_code in _WORTH_RETRYING:
        raise _TransientError(status)
    raise UserError(
        f"{download.url}: {status}; expected 200: check the address in {download.where}.url and your right to read it"
    )


def _resumes(response: requests.Response, present: int) -> bool:
    """Whether the response continues after the bytes that are present (RFC 9110, section 14)."""
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {present}-")


def _copy(response: requests.Response, part: BinaryIO, present: int, url: str) -> None:
    length = response.headers.get("Content-Length", "")
    expected = int(length) if length.isdigit() else None
    received = 0
    with tqdm(
        desc=file_name(url),
        total=expected and present + expected,
        initial=present,
        unit="B",
        unit_scale=True,
        disable=None,
        leave=False,
    ) as bar:
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            part.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    if expected is not None and received != expected:
        raise _TransientError(f"the connection ended after {received:,} of {expected:,} bytes")


def _cause(error: BaseException) -> str:
    return str(error).split(": ", 1)[-1][:160]
