"""Locations of an MLflow store's files that stay valid when the store moves or is served to others.

An embedded store (`sqlite:///mlflow.db`) keeps its files in `mlartifacts` beside the database; `tohum ui` serves the
same folder. Its database records `mlflow-artifacts:/...`, MLflow's form for "the folder of the server": a client of
the server reads and writes through it, and where there is no server this module names the folder. Earlier versions
recorded absolute `file://` paths. They are used unchanged while their folder exists; after a move, or from another
machine, the part behind `mlartifacts/` is looked up in the store that was opened.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlparse

from pipeline.errors import UserError

FOLDER = "mlartifacts"
PROXIED = "mlflow-artifacts:/"


def for_new_experiments(tracking_uri: str) -> str | None:
    """The location to create an experiment with; None leaves it to the store."""
    return PROXIED if folder_of(tracking_uri) is not None else None


def folder_of(tracking_uri: str) -> Path | None:
    """The folder with the files of an embedded store, beside its database; None for every other store."""
    match = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", tracking_uri)
    return Path(os.path.abspath(match[1])).parent / FOLDER if match else None


def resolve(location: str, tracking_uri: str) -> str:
    """The URI under which a process with this tracking URI reaches a recorded location.

    Raises:
        UserError: the location leaves the store's folder.
    """
    parsed = urlparse(location)
    here = folder_of(tracking_uri)
    if parsed.scheme == "mlflow-artifacts":
        return location if here is None else _below(here, parsed.path)
    if parsed.scheme not in ("", "file"):
        return location
    path = unquote(parsed.path)
    before, found, inside = path.rpartition(f"/{FOLDER}/")
    if not found or (here is not None and os.path.abspath(before) == str(here.parent)):
        return location
    if os.path.isdir(f"{before}/{FOLDER}") and not (here is not None and (here / inside).exists()):
        return location
    if here is not None:
        return _below(here, inside)
    return PROXIED + quote(inside) if tracking_uri.startswith(("http://", "https://")) else location


def _below(folder: Path, path: str) -> str:
    parts = [part for part in unquote(path).split("/") if part]
    if any(part in (".", "..") or "\0" in part for part in parts):
        raise UserError(f"artifact location {path!r} leaves {folder}; the store was changed: look at its database")
    return folder.joinpath(*parts).as_uri()
