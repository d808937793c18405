"""Registered versions in an MLflow store: found by name, read, and checked before use.

Models of this project have its prefix and a sealed list of files (contents.py). Any other registered model is named as
`models:/<name>`; its versions have one hash over all files. The champion of either is the version that the ledger
says: an alias that was moved without an entry is refused.
"""

import contextlib
import re
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.paths import REGISTRY
from pipeline.registry import contents, identity
from pipeline.registry.contents import Contents
from pipeline.registry.ledger import Chain, Entry
from pipeline.registry.ledger_store import Ledger
from pipeline.tracking import artifact_store

CANDIDATE, CHAMPION = "candidate", "champion"
MODEL, VERSION = "model_sha256", "version_sha256"
STORED = "tohum.stored_sha256"
"""Tag of a version whose model is stored in its project as an adapter only: SHA-256 of that folder."""
APPROVED = "tohum.approved_sha256"
"""Tag that repeats the hash of the last approval on MLflow's page; the ledger decides."""
CACHE = REGISTRY
_URI = "models:/"
_MOVING = timedelta(seconds=3)
"""Time that a reader waits, by its own clock, for the writer of an entry to move the alias."""
_SKEW = timedelta(minutes=5)
"""Most that an entry's time may differ from this computer's clock for it to count as just written."""


@contextlib.contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Translates errors of MLflow and its database driver into a UserError that names the store."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        reason = without_credentials(str(error).strip().partition("\n")[0][:300])
        raise UserError(
            f"MLflow at {without_credentials(uri)}: {reason}; start it, or fix runtime.tracking.uri in params.yaml "
            "or the database that it names"
        ) from None


@contextlib.contextmanager
def _absent() -> Iterator[None]:
    """Ends the block where MLflow reports no such model, version or alias; other errors pass."""
    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise


def without_credentials(text: str) -> str:
    """The text with `user:password@` taken out of its addresses."""
    return re.sub(r"//[^\s]*@", "//", text)


class Store:
    """Versions and aliases of one project's models in one MLflow store."""

    def __init__(self, params: Params) -> None:
        tracking = params.runtime.tracking
        self.params = params
        self.uri = tracking.uri
        self.place = without_credentials(tracking.uri)
        artifact_store.connect(tracking.uri)
        mlflow.set_tracking_uri(tracking.uri)
        mlflow.set_registry_uri(tracking.uri)
        self.client = MlflowClient(tracking.uri, tracking.uri)
        self.ledger = Ledger(self.client, self.place)

    def name(self, model: str) -> str:
        """The registered model's name: `<register.name>-<model>`, or the name of `models:/<name>`, which may be any."""
        if model.startswith(_URI):
            return re.split("[@/]", model.removeprefix(_URI))[0]
        prefix = f"{self.params.register_.name}-"
        return model if model.startswith(prefix) else prefix + model

    def is_ours(self, version: ModelVersion) -> bool:
        """Whether a version must have a sealed list of files: it is of this project, or says that it has one."""
        return str(version.name).startswith(f"{self.params.register_.name}-") or VERSION in version.tags

    def models(self) -> list[str]:
        """Every registered model of this project, also those that params.yaml no longer names."""
        prefix = f"{self.params.register_.name}-"
        models = self.client.search_registered_models(f"name LIKE '{prefix}%'", max_results=1000)
        return sorted(model.name for model in models if model.name.startswith(prefix))

    def versions(self, model: str) -> list[ModelVersion]:
        """Every version of a model, newest first; none if it was never registered."""
        versions = self.client.search_model_versions(f"name = '{self.name(model)}'")
        return sorted(versions, key=lambda version: int(version.version), reverse=True)

    def at(self, model: str, alias: str) -> ModelVersion | None:
        """The version that an alias points to."""
        with _absent():
            return self.client.get_model_version_by_alias(self.name(model), alias)
        return None

    def champion(self, model: str) -> ModelVersion | None:
        """The champion; None if there is neither an alias nor an approval in force.

        Raises:
            UserError: the alias was moved without an entry of the ledger, or the ledger is damaged.
        """
        name = self.name(model)
        since, head = datetime.now(UTC), ""
        while True:
            version = self.at(f"{_URI}{name}", CHAMPION)
            chain = self.ledger.intact(name)  # after the alias, so that an alias moved in between is only read again
            difference = unlike(version, chain)
            doubts = [f"entry {entry.n} of the ledger {why}" for entry in deciding(chain)
                      if (why := identity.doubt(self.params.review, entry))]  # fmt: skip
            if doubts:
                raise UserError(f"{name}: {doubts[0]}; nothing was loaded")
            if not difference:
                return version
            if chain.head != head:  # another decision in the meantime has a writer of its own
                since, head = datetime.now(UTC), chain.head
            if not _is_moving(version, chain) or datetime.now(UTC) - since >= _MOVING:
                raise UserError(f"{name}: {difference}; nothing was loaded")
            time.sleep(0.2)

    def find(self, uri: str) -> ModelVersion:
        """The version of `models:/<name>@<alias>` or `models:/<name>/<version>`.

        Raises:
            UserError: there is none, or it is a champion by an alias that was moved without an entry of the ledger.
        """
        rest = uri.removeprefix(_URI)
        name, at, alias = rest.partition("@")
        version = None
        with _absent():
            if at and alias == CHAMPION:
                version = self.champion(f"{_URI}{name}")
            elif at:
                version = self.client.get_model_version_by_alias(name, alias)
            else:
                name, _, number = rest.partition("/")
                version = self.client.get_model_version(name, number)
        if version is None:
            raise UserError(
                f"{uri}: not in the registry at {self.place}; `tohum list` shows "
                "its versions, as models:/<name>@candidate or models:/<name>/<version>"
            )
        return version

    def verify(self, version: ModelVersion, approved: bool = False) -> Contents:
        """Reads every file of a version again and compares it with the manifest and the tags.

        Raises:
            UserError: the store holds other files than were registered, or (`approved`) than were approved.
        """
        with self.opened(version, approved) as (_, sealed):
            return sealed

    @contextlib.contextmanager
    def opened(self, version: ModelVersion, approved: bool = False) -> Iterator[tuple[Path, Contents]]:
        """A local copy of a version with every file checked, and its identity; removed at the end of the block.

        Raises:
            UserError: other files than were registered, or (`approved`) than the ledger's champion has.
        """
        entry = self._require_approved(version) if approved else None
        with self.stored(f"models:/{version.name}/{version.version}") as folder:
            if not self.is_ours(version):
                sealed = contents.of_any(folder, version.name)
                _require_same(version, sealed, entry)
                yield folder, sealed
                return
            sealed = contents.check(folder, version.name, version.version)
            _require_same(version, sealed, entry)
            expected = {MODEL: sealed.model_sha256, VERSION: sealed.version_sha256, "tohum.model": sealed.model}
            for tag, value in expected.items():
                if version.tags.get(tag) != value:
                    raise UserError(
                        f"{version.name} version {version.version}: its files give {tag} {value}, its tag says "
                        f"{version.tags.get(tag)}; the store was changed or damaged: register the model again "
                        "(tohum register)"
                    )
            yield folder, sealed

    def _require_approved(self, version: ModelVersion) -> Entry:
        """The approval in force. Raises UserError where it is of another version."""
        approvals = self.ledger.intact(version.name).champions()
        if not approvals or approvals[-1].version != str(version.version):
            said = f"version {approvals[-1].version}" if approvals else "none"
            raise UserError(
                f"{version.name} version {version.version}: approved was {said}; review and promote it: tohum review"
            )
        return approvals[-1]

    @contextlib.contextmanager
    def stored(self, uri: str) -> Iterator[Path]:
        """A fresh, unchecked local copy of a version's files; removed at the end of the block."""
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            try:
                copy = mlflow.artifacts.download_artifacts(uri, dst_path=scratch, tracking_uri=self.uri)
            except (MlflowException, OSError) as error:
                raise UserError(f"{uri}: cannot be read from the store: {without_credentials(str(error))}") from None
            yield Path(copy)


def unlike(version: ModelVersion | None, chain: Chain) -> str:
    """The rest of a sentence that says how the alias `champion` differs from the ledger; empty where it does not."""
    approvals = chain.champions()
    entry = approvals[-1] if approvals else None
    if entry is None:
        if version is None:
            return ""
        return (
            f"{CHAMPION} points to version {version.version}, and the ledger holds no approval of it; review and "
            "promote it: tohum review, or, if it was approved before there was a ledger: tohum registry adopt"
        )
    said = f"the ledger says version {entry.version} (entry {chain.entries[-1].n}, {entry.who}, {entry.when})"
    if version is None:
        return f"the alias {CHAMPION} was removed without a decision, {said}; tohum registry check --repair"
    if str(version.version) != entry.version:
        return (
            f"{CHAMPION} was moved to version {version.version} without a decision, {said}; "
            "tohum registry check --repair"
        )
    return ""


def deciding(chain: Chain) -> list[Entry]:
    """The entries by which the champion is the champion: its approval, and a roll back to it."""
    moved = [entry for entry in chain.entries if entry.action != "reject"][-1:]
    return [*chain.champions()[-1:], *moved]


def _is_moving(version: ModelVersion | None, chain: Chain) -> bool:
    """Whether the alias still points to the champion before the last entry, and that entry was written just now."""
    if not chain.entries:
        return False
    before = chain._replace(entries=chain.entries[:-1]).champions()
    number = None if version is None else str(version.version)
    age = datetime.now(UTC) - datetime.fromisoformat(chain.entries[-1].when)
    return number == (before[-1].version if before else None) and abs(age) < _SKEW


def _require_same(version: ModelVersion, sealed: Contents, entry: Entry | None) -> None:
    """Raises UserError where the files are not the approved ones."""
    if entry is not None and sealed.version_sha256 != entry.version_sha256:
        raise UserError(
            f"{version.name} version {version.version}: {VERSION} is {sealed.version_sha256}, approved was "
            f"{entry.version_sha256}; register the model again (tohum register), review and promote it: tohum review"
        )
