"""MLflow's artifact repositories with locations resolved first, so that a store works after a move.

    artifact_store.connect(uri)      before a client of MLflow is made

MLflow chooses the class that reads and writes artifacts by the scheme of the recorded location. `connect` puts one in
front for `mlflow-artifacts:` and `file:` that calls `artifact_location.resolve`; all other schemes stay MLflow's.
"""

import os
from typing import Any

import mlflow
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from pipeline.tracking import artifact_location, credentials

_LOGIN: dict[str, str] = {}
"""Environment variables with MLflow's login to the local server, once they have been needed."""


class _CopyingRepository(LocalArtifactRepository):
    """A local folder; readers get a copy.

    MLflow otherwise hands out the stored folder itself and then writes into it on loading (`registered_model_meta`).
    """

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
        path = ArtifactRepository.download_artifacts(self, artifact_path, dst_path)  # type: ignore[no-untyped-call] # MLflow has no types here
        return str(path)


def connect(tracking_uri: str) -> None:
    """Resolves locations for every client of MLflow in this process; repeating it changes nothing.

    The secret of the server that `tohum ui` starts goes into the environment, where MLflow's clients read it. MLflow's
    documented way to register a repository is an entry point of an installed package; this project is not installed.
    """
    if credentials.is_local_mlflow(tracking_uri):
        _LOGIN.update(credentials.mlflow_login())
        os.environ.update(_LOGIN)
    else:  # the sender may write to several servers; the variables would go to each
        for name in _LOGIN:
            os.environ.pop(name, None)
    repositories: dict[str, Any] = get_registered_artifact_repositories()
    repositories |= {"mlflow-artifacts": _repository, "file": _repository, "": _repository}


def _repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> ArtifactRepository:
    uri = artifact_location.resolve(artifact_uri, tracking_uri or mlflow.get_tracking_uri())
    if uri.startswith("mlflow-artifacts:"):
        return MlflowArtifactsRepository(uri, tracking_uri, registry_uri)
    ours = f"/{artifact_location.FOLDER}/" in uri
    return (_CopyingRepository if ours else LocalArtifactRepository)(uri, tracking_uri, registry_uri)
