"""Pseudonyms of users and raters: a keyed hash that only this project can make from a name or an API key."""

import hmac
import re
import secrets
from pathlib import Path

from pipeline.paths import SECRETS
from pipeline.tracking.credentials import write_once

NOBODY = "-"
"""Name of the key of requests to a server without keys."""


def secret(path: Path = SECRETS / "journal") -> str:
    """The secret of the pseudonyms, made if there is none."""
    if not path.exists():
        write_once(path, secrets.token_hex(32))
    return path.read_text(encoding="utf-8").strip()


def pseudonym(user: str, key: str) -> str:
    """`u-` and 20 hexadecimal digits of the HMAC-SHA256 of a user's name or API key under the project's secret."""
    return "u-" + hmac.new(key.encode(), user.encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:20]


def full_name(user: str) -> str:
    """KEY/USER, as the server names a person; USER or /USER alone is a user of a server without keys."""
    key, slash, name = user.partition("/")
    return user if slash and key else f"{NOBODY}/{name if slash else key}"


def is_pseudonym(name: str) -> bool:
    """Whether a name has the form of a pseudonym."""
    return re.fullmatch(r"u-[0-9a-f]{20}", name) is not None
