"""Registered versions of one project in an MLflow store: found by name, read, and checked before use."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.paths import REGISTRY
from pipeline.registry import contents
from pipeline.registry.contents import Contents
from pipeline.tracking import artifact_store

CANDIDATE, CHAMPION = "candidate", "champion"
MODEL, VERSION = "model_sha256", "version_sha256"
STORED = "tohum.stored_sha256"
"""Tag of a version whose model is stored in its project as an adapter only: SHA-256 of that folder."""
APPROVED = "tohum.approved_sha256"
CACHE = REGISTRY


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

    def name(self, model: str) -> str:
        """The registered model's name: `<register.name>-<model>`."""
        prefix = f"{self.params.register_.name}-"
        return model if model.startswith(prefix) else prefix + model

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

    def find(self, uri: str) -> ModelVersion:
        """The version of `models:/<name>@<alias>` or `models:/<name>/<version>`. Raises UserError if there is none."""
        rest = uri.removeprefix("models:/")
        name, at, alias = rest.partition("@")
        version = None
        with _absent():
            if at:
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
        """A local copy of a version with every file checked, and its identity; removed at the end of the block."""
        if approved:
            require_approved(version)
        with self.stored(f"models:/{version.name}/{version.version}") as folder:
            sealed = contents.check(folder, version.name, version.version)
            expected = {MODEL: sealed.model_sha256, VERSION: sealed.version_sha256, "tohum.model": sealed.model}
            for tag, value in expected.items():
                if version.tags.get(tag) != value:
                    raise UserError(
                        f"{version.name} version {version.version}: its files give {tag} {value}, its tag says "
                        f"{version.tags.get(tag)}; the store was changed or damaged: register the model again "
                        "(tohum register)"
                    )
            yield folder, sealed

    @contextlib.contextmanager
    def stored(self, uri: str) -> Iterator[Path]:
        """A fresh, unchecked local copy of a version's files; removed at the end of the block."""
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            try:
                copy = mlflow.artifacts.download_artifacts(uri, dst_path=scratch, tracking_uri=self.uri)
            except (MlflowException, OSError) as error:
                raise UserError(f"{uri}: cannot be read from the store: {error}") from None
            yield Path(copy)


def require_approved(version: ModelVersion) -> None:
    """Raises UserError where a champion is not the approved version; its files are compared with that tag when read."""
    if VERSION in version.tags and version.tags.get(APPROVED) != version.tags[VERSION]:
        raise UserError(
            f"{version.name} version {version.version}: {VERSION} is {version.tags[VERSION]}, approved was "
            f"{version.tags.get(APPROVED, 'none')}; review and promote it: tohum review"
        )
