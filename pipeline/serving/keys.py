"""API keys: a file of salted SHA-256 hashes, and the requests that each key may make in a minute.

A key has 256 random bits, so a plain hash of it cannot be guessed back. It is printed once when it is made and is
nowhere else.
"""

import hashlib
import hmac
import math
import os
import re
import secrets
import time
from pathlib import Path

from pipeline import files
from pipeline.errors import UserError
from pipeline.serving.errors import busy

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIX = "tohum-"


class Keys:
    """The keys in a file; a change of the file counts from the next request."""

    def __init__(self, path: Path) -> None:
        """`path`: may be absent: no key is needed then."""
        self._path = path
        self._read_at: tuple[int, int] | None = None
        self._entries: list[tuple[str, bytes, bytes]] = []

    @property
    def needed(self) -> bool:
        """Whether requests need a key: the file holds one. Raises UserError for a damaged file."""
        self._refresh()
        return bool(self._entries)

    def owner(self, key: str) -> str | None:
        """The name of a key; None for one that the file does not hold. Takes the same time for each."""
        self._refresh()
        found = None
        for name, salt, digest in self._entries:
            if hmac.compare_digest(_hashed(salt, key), digest):
                found = name
        return found

    def add(self, name: str) -> str:
        """Makes a key.

        Raises:
            UserError: a name that is taken or has other characters.
        """
        if not _NAME.fullmatch(name):
            raise UserError(f"key {name!r}: expected a name of letters, digits, '.', '_' and '-', at most 64")
        self._refresh()
        if any(known == name for known, _, _ in self._entries):
            raise UserError(
                f"{self._path}: has a key {name!r} already; revoke it first: tohum serve --revoke-key {name}"
            )
        key, salt = _PREFIX + secrets.token_urlsafe(32), secrets.token_bytes(16)
        self._write([*self._entries, (name, salt, _hashed(salt, key))])
        return key

    def revoke(self, name: str) -> None:
        """Removes a key. Raises UserError for a name that has none."""
        self._refresh()
        kept = [entry for entry in self._entries if entry[0] != name]
        if len(kept) == len(self._entries):
            raise UserError(f"{self._path}: has no key {name!r}; it has: {', '.join(e[0] for e in kept) or 'none'}")
        self._write(kept)

    def _write(self, entries: list[tuple[str, bytes, bytes]]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = {name: {"salt": salt.hex(), "sha256": digest.hex()} for name, salt, digest in entries}
        mask = os.umask(0o077)
        try:
            files.write_json(self._path, content)
        finally:
            os.umask(mask)
        self._read_at = None

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._entries, self._read_at = [], None
            return
        present = (status.st_mtime_ns, status.st_ino)
        if present == self._read_at:
            return
        try:
            content = files.read_json(self._path)
            self._entries = [
                (str(name), bytes.fromhex(entry["salt"]), bytes.fromhex(entry["sha256"]))
                for name, entry in content.items()
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{self._path}: damaged; remove it and make keys anew: tohum serve --new-key NAME"
            ) from None
        self._read_at = present


class Rate:
    """Requests a minute of each key (token bucket: a minute's requests at once, then one in `60 / limit` seconds)."""

    def __init__(self, limit: int | None) -> None:
        """`limit`: requests a minute; None: any number."""
        self._limit = limit
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, owner: str) -> None:
        """Counts a request. Raises ApiError 429 with the seconds to wait."""
        if self._limit is None:
            return
        now = time.monotonic()
        left, then = self._left.get(owner, (float(self._limit), now))
        left = min(float(self._limit), left + (now - then) * self._limit / 60)
        if left < 1:
            self._left[owner] = (left, now)
            seconds = math.ceil((1 - left) * 60 / self._limit)
            raise busy(f"{self._limit} requests a minute are allowed; try again in {seconds} s", seconds)
        self._left[owner] = (left - 1, now)


def _hashed(salt: bytes, key: str) -> bytes:
    return hashlib.sha256(salt + key.encode("utf-8", "surrogatepass")).digest()
