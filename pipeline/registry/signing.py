"""Signatures of ledger entries: Ed25519 (RFC 8032) by an OpenSSH private key, with the library `cryptography`.

A signature is the only proof of a person's identity that holds without trust in the server: it signs the entry's hash,
and the entry names the public key. `review.signers` in params.yaml says whose key it is.
"""

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pipeline.registry.ledger import Entry

PASSPHRASE = "TOHUM_SIGNING_PASSPHRASE"
"""Environment variable with the passphrase of the private key, where it has one."""
_PURPOSE = b"tohum-ledger\0"  # a signature of another purpose by the same key is none of an entry


class Signer:
    """A private key that signs entries."""

    def __init__(self, path: Path) -> None:
        """Reads an OpenSSH private key file (`ssh-keygen -t ed25519`).

        Raises:
            UserError: no such file, one that other users may read, or no Ed25519 key.
        """
        self._key = _read(path)
        self.public = _public(self._key)
        """The public key in OpenSSH's form, without a comment."""

    def sign(self, sha256: str) -> str:
        """The signature of an entry's hash, base64."""
        return base64.b64encode(self._key.sign(_PURPOSE + sha256.encode())).decode()


def _read(path: Path) -> "Ed25519PrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    path = path.expanduser()
    advice = "expected an OpenSSH private key file: ssh-keygen -t ed25519"
    try:
        data, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise UserError(f"review.signing.key: {path}: {error.strerror}; {advice}") from None
    if mode & 0o077:
        raise UserError(f"review.signing.key: {path}: other users may read it; chmod 600 {path}")
    passphrase = os.environ.get(PASSPHRASE)
    try:
        key = load_ssh_private_key(data, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        hint = f"; its passphrase goes into {PASSPHRASE}" if "assw" in str(error) else f"; {advice}"
        raise UserError(f"review.signing.key: {path}: {error}{hint}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"review.signing.key: {path}: is no Ed25519 key; {advice}")
    return key


def _public(key: "Ed25519PrivateKey") -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def fingerprint(public: str) -> str:
    """SHA256:... of a public key, as `ssh-keygen -l` prints it; empty for a text that is no key."""
    words = public.split()
    try:
        digest = hashlib.sha256(base64.b64decode(words[1], validate=True)).digest()
    except (IndexError, binascii.Error):
        return ""
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def problem(entry: "Entry") -> str:
    """The rest of a sentence that says why an entry's signature is none; empty where it holds or none is claimed."""
    if entry.identity != "signature":
        return "has a signature, but says that it has none" if entry.signature or entry.key else ""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key = load_ssh_public_key(entry.key.encode())
        if not isinstance(key, Ed25519PublicKey):
            return "is signed by a key that is no Ed25519 key"
        key.verify(base64.b64decode(entry.signature, validate=True), _PURPOSE + entry.hash.encode())
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return "has a signature that is not of its key"
    if not entry.who.endswith(fingerprint(entry.key)):
        return f"names {entry.who}, but is signed by {fingerprint(entry.key)}"
    return ""
