"""The person behind a decision, and how that is known: a signing key, MLflow's login, or not at all.

A login is the user that MLflow's server (`--app-name basic-auth`, or another of its authentication plugins) names for
the password of this process. It is as trustworthy as the server and those who may write to the ledger with a client of
their own: only a signature proves an entry's author to somebody else. git's user.name is a free field and no proof.
"""

import getpass
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from pipeline.config.review import Review
from pipeline.errors import UserError
from pipeline.registry.ledger import Entry, Identity
from pipeline.registry.signing import Signer, fingerprint

_CURRENT = "/api/2.0/mlflow/users/current"


class Person(NamedTuple):
    """The author of an entry."""

    who: str
    identity: Identity
    signer: Signer | None = None


def present(uri: str, key: str | None, signers: dict[str, str]) -> Person:
    """The person who runs this process.

    Args:
        uri: tracking URI of the store.
        key: path of the private key of `review.signing`; None: entries are not signed.
        signers: name -> public key (`review.signers`).

    Raises:
        UserError: a key that cannot be used, or a server that refuses the login.
    """
    if key is not None:
        signer = Signer(Path(key))
        mark = fingerprint(signer.public)
        name = next((name for name, public in signers.items() if fingerprint(public) == mark), None)
        return Person(f"{name}, {mark}" if name else mark, "signature", signer)
    login = _login(uri)
    if login is not None:
        return Person(login, "login")
    return Person(f"unverified: {_os_user()}", "unverified")


def doubt(review: Review, entry: Entry) -> str:
    """The rest of a sentence that says why the settings do not take an entry's author; empty where they do.

    Args:
        review: `identity` may need a proof; with any `signers` a signature must be by one of their keys.
        entry: an entry of the ledger whose signature holds.
    """
    if review.identity == "verified" and entry.identity == "unverified":
        return f"is by {entry.who}, and review.identity needs a login or a signature"
    known = {fingerprint(public): name for name, public in review.signers.items()}
    if entry.identity != "signature" or not known:
        return ""
    mark = fingerprint(entry.key)
    if mark not in known:
        return f"is signed by {mark}, the key of nobody in review.signers"
    return "" if entry.who == f"{known[mark]}, {mark}" or entry.who == mark else f"calls {known[mark]} {entry.who}"


def _login(uri: str) -> str | None:
    """The user that the server names; None for a store without a server, or a server that knows no users."""
    if not uri.startswith(("http://", "https://")):
        return None
    try:
        host: Any = get_default_host_creds(uri)  # type: ignore[no-untyped-call] # MLflow has no types here
        answer: Any = http_request(host, _CURRENT, "GET", timeout=30)  # type: ignore[no-untyped-call]
    except MlflowException:
        return None
    if answer.status_code == 401:
        raise UserError(
            "MLflow's server refuses the login of this process; set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    if answer.status_code != 200:
        return None
    try:
        name = answer.json()["user"]["username"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(name) or None


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
