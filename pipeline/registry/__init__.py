"""The model registry: admission, packing, model cards, and the life cycle of a version on MLflow's registry.

Two hashes name a version (contents.py): equal `model_sha256` give the version that is already there; an approval names
the `version_sha256`, which covers every file. A version is shown, promoted or loaded from a copy whose files were all
read and compared first; tags are always checked against the files. The alias `candidate` is the version
that was registered last, `champion` the one that may serve. Aliases are last-writer-wins in MLflow: the champion is
therefore the version that the ledger of decisions says (ledger.py), and an alias that differs is not loaded.
"""

import os

# MLflow reads these when it is imported, which every module behind this one does.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # uploads are large, and a person is waiting
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")

from pipeline.registry.lifecycle import Registry, download
from pipeline.registry.store import APPROVED, CACHE, CANDIDATE, CHAMPION, MODEL, VERSION, reachable

__all__ = ["APPROVED", "CACHE", "CANDIDATE", "CHAMPION", "MODEL", "VERSION", "Registry", "download", "reachable"]
