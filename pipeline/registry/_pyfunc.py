"""The entry file of a registered version: `mlflow.pyfunc.load_model` runs it, and then calls `predict`.

The registry saves this file (models-from-code) at the root of a version, so that loading needs neither a pickle nor
this checkout. MLflow itself checks no approvals: this file therefore reads every file of the version and compares it
with the hashes that were sealed at registration, before it imports anything from `code/`. It cannot check itself, nor
the file that MLflow reads before it (MLmodel); `tohum download` checks both. It also refuses a version that the alias
`champion` was moved to by hand, without an entry of the ledger of decisions (pipeline/registry/ledger.py), and a
champion by an entry that was edited, or whose author the review settings do not take. The params of the project are not
at hand here: `review.identity` and `review.signers` are those of review.json, packed at registration (`tohum download`
takes the current ones).
"""

import base64
import hashlib
import importlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

SEAL = ""
# SHA-256 of version.json, written here when the version is packed.


_REFUSED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
# MLflow's error codes for a reader without a login or a permission.


class ChangedError(RuntimeError):
    """A file of the version differs from the registered one."""


class UndecidedError(RuntimeError):
    """The version is the champion by its alias, but not by the ledger of decisions."""


class Served(PythonModel):
    """A table with a column `text` in, a table of answers out."""

    def load_context(self, context: PythonModelContext) -> None:  # noqa: ARG002 - MLflow calls it so
        """Checks every file and the decision, then loads code and model. Raises ChangedError or UndecidedError."""
        folder = Path(__file__).parent
        manifest = read_manifest(folder)
        check(folder, manifest["files"])
        require_decision(folder, manifest["files"])
        load_code(folder, manifest["files"])
        from pipeline.inference.predictor import Predictor

        self._predictor = Predictor(folder / "artifacts" / manifest["model"])

    # No type hints: MLflow would infer a signature from them instead of using the registered one.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # noqa: ARG002 - MLflow calls it so
        """The answers to the rows of a table; `params` are generation settings.

        Raises:
            MlflowException: a request that cannot be answered: INVALID_PARAMETER_VALUE, in HTTP 400, with the reason.
        """
        import pandas as pd
        from mlflow.exceptions import MlflowException

        from pipeline.errors import UserError
        from pipeline.inference import requests

        try:
            return pd.DataFrame(requests.answers(self._predictor, model_input, params))
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """version.json, if it has the hash sealed into this file."""
    data = (folder / "version.json").read_bytes() if (folder / "version.json").is_file() else b""
    if hashlib.sha256(data).hexdigest() != SEAL:
        raise ChangedError(f"{folder}: version.json is not the registered one; fetch or register the version again")
    manifest: dict[str, Any] = json.loads(data)
    return manifest


def check(folder: Path, files: dict[str, str]) -> None:
    """Compares every file below the folder with its registered hash; raises ChangedError at the first difference."""
    there = set()
    for at, directories, names in os.walk(folder):
        links = [name for name in directories if os.path.islink(os.path.join(at, name))]
        there |= {Path(at, name).relative_to(folder).as_posix() for name in [*names, *links]}
    unlisted = {"version.json", Path(__file__).name, "registered_model_meta"}  # the last is written by MLflow
    if added := sorted(there - unlisted - set(files)):
        raise ChangedError(f"{folder}: {added[0]!r} is no file of this version; nothing of it was loaded")
    for name, sha256 in files.items():
        if name not in there or _sha256(folder / name) != sha256:
            raise ChangedError(f"{folder}: {name} is missing or changed; nothing of the version was loaded")


def require_decision(folder: Path, files: dict[str, str]) -> None:
    """Raises UndecidedError where the alias `champion` points here and the ledger names another version or other files.

    MLflow writes down which registered version it has loaded, not by which alias. Nothing is checked for a folder that
    is no registered version's, or where the store does not answer; a store that refuses this reader is an error: READ
    on the model and on the experiment `tohum-ledger` is needed.
    """
    meta = folder / "registered_model_meta"
    if not meta.is_file():
        return
    import yaml
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    named = yaml.safe_load(meta.read_text(encoding="utf-8"))
    name, number = str(named["model_name"]), str(named["model_version"])
    try:
        client = MlflowClient()
        if str(client.get_registered_model(name).aliases.get("champion")) != number:
            return
        deciding = deciding_entries(client, name)
    except MlflowException as error:
        if error.error_code in _REFUSED:
            raise UndecidedError(
                f"{name}: MLflow refuses to show the ledger of decisions ({error.error_code}), so that version "
                f"{number} may not be the champion; nothing was loaded: log in, or ask for READ on the experiment "
                "tohum-ledger"
            ) from None
        return
    version, sha256 = (deciding[0]["version"], deciding[0]["version_sha256"]) if deciding else ("none", "")
    if version != number:
        raise UndecidedError(
            f"{name}: the alias champion points to version {number}, the ledger of decisions says "
            f"{version}; nothing was loaded: tohum registry check"
        )
    if sha256 != (actual := hash_of_all(folder, files)):
        raise UndecidedError(
            f"{name} version {number}: version_sha256 is {actual}, approved was {sha256}; nothing was loaded: "
            "tohum registry check"
        )
    review = json.loads((folder / "review.json").read_bytes())
    for entry in deciding:
        if why := doubt(entry, review):
            raise UndecidedError(
                f"{name}: entry {entry['n']} of the ledger {why}; nothing was loaded: tohum registry check"
            )


def doubt(entry: dict[str, Any], review: dict[str, Any]) -> str:
    """The rest of a sentence that says why an entry does not decide; empty where it does.

    The same rules as ledger.py (hash), signing.py (signature) and identity.py (author).

    Args:
        entry: as stored, with `hash` and `signature`.
        review: `identity` and `signers`.
    """
    head = {key: value for key, value in entry.items() if key not in ("hash", "signature")}
    written = json.dumps(head, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if hashlib.sha256(written.encode()).hexdigest() != entry["hash"]:
        return "was edited: its content does not give its hash"
    if entry["identity"] != "signature":
        if entry["signature"] or entry["key"]:
            return "has a signature, but says that it has none"
        if entry["identity"] == "unverified" and review["identity"] == "verified":
            return f"is by {entry['who']}, and review.identity needs a login or a signature"
        return ""
    if not signed(entry):
        return "has a signature that is not of its key"
    mark, known = fingerprint(entry["key"]), {fingerprint(key): name for name, key in review["signers"].items()}
    if not entry["who"].endswith(mark):
        return f"names {entry['who']}, but is signed by {mark}"
    if known and mark not in known:
        return f"is signed by {mark}, the key of nobody in review.signers"
    if known and entry["who"] not in (mark, f"{known[mark]}, {mark}"):
        return f"calls {known[mark]} {entry['who']}"
    return ""


def signed(entry: dict[str, Any]) -> bool:
    """Whether the entry's signature is one of its hash by its Ed25519 key."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key = load_ssh_public_key(entry["key"].encode())
        if not isinstance(key, Ed25519PublicKey):
            return False
        key.verify(base64.b64decode(entry["signature"], validate=True), b"tohum-ledger\0" + entry["hash"].encode())
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def fingerprint(public: str) -> str:
    """SHA256:... of an OpenSSH public key; empty for a text that is no key."""
    words = public.split()
    try:
        digest = hashlib.sha256(base64.b64decode(words[1], validate=True)).digest()
    except (IndexError, ValueError):
        return ""
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def hash_of_all(folder: Path, files: dict[str, str]) -> str:
    """SHA-256 over every file of a checked version: contents.py computes the same, version_sha256."""
    hashes = files | {name: _sha256(folder / name) for name in ("version.json", Path(__file__).name)}
    digest = hashlib.sha256()
    for name in sorted(hashes):
        digest.update(f"{name}\0{hashes[name]}\n".encode())
    return digest.hexdigest()


def deciding_entries(client: Any, name: str) -> list[dict[str, Any]]:
    """The last approval in force and the last entry that moved the champion; none if there is no champion. `tohum
    ledger` checks the chain of all entries.
    """
    experiment = client.get_experiment_by_name("tohum-ledger")
    run = None if experiment is None else experiment.tags.get("tohum.ledger_run")
    if run is None:
        return []
    params = client.get_run(run).data.params
    prefix = re.escape(quote(name, safe="").replace("~", "%7E").replace("%", ":"))
    approved: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    for key in sorted(key for key in params if re.fullmatch(prefix + r"/\d+", key)):
        entry = json.loads(params[key])
        if entry["action"] in ("adopt", "approve"):
            approved.append(entry)
        elif entry["action"] == "roll back":
            approved.pop()
        if entry["action"] != "reject":
            last = entry
    return [approved[-1], last] if approved else []


def load_code(folder: Path, files: dict[str, str]) -> None:
    """Imports every module of `code/` now, so that nothing is read from there after the check."""
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # bytecode would be an unregistered file
    sys.path.insert(0, str(folder / "code"))
    try:
        for name in sorted(name for name in files if name.startswith("code/")):
            parts = Path(name).relative_to("code").with_suffix("").parts
            module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
            if _sha256(Path(str(module.__file__))) != files[name]:
                raise ChangedError(
                    f"{module.__name__} was already imported from {module.__file__} and differs from the version's; "
                    "load this version in a process of its own"
                )
    finally:
        sys.path.remove(str(folder / "code"))
        sys.dont_write_bytecode = kept


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


set_model(Served())
