"""Errors of a delivery to MLflow, and their translation from errors of mlflow and its libraries."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.tracking import store_file

_LONGEST = 300  # characters of a foreign message
# Messages of SQLite about a file that is no database, is cut off or belongs to another program.
_DAMAGED = ("not a database", "malformed", "no such table", "no such column")


class AwayError(OSError):
    """The store cannot be reached, or refuses for now: try again later."""


class DamagedError(AwayError):
    """The store is reachable and is no database that this MLflow can use: trying again does not help."""


class GoneError(LookupError):
    """A run that was delivered before is no longer in the store."""


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Translates errors of mlflow, its HTTP client and database driver into AwayError, DamagedError and GoneError."""
    try:
        yield
    except (AwayError, GoneError):
        raise
    except Exception as error:
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            raise GoneError(str(error)) from error
        why = " ".join(str(getattr(error, "orig", None) or error).split())
        if "out-of-date database schema" in why:
            why = f"another version of MLflow made it; `mlflow db upgrade {uri}` brings a copy of it up to date"
            raise DamagedError(store_file.advice(uri, why)) from error
        if uri.startswith("sqlite") and any(words in why for words in _DAMAGED):
            raise DamagedError(store_file.advice(uri, why[:_LONGEST])) from error
        raise AwayError(f"MLflow: {type(error).__name__}: {why[:_LONGEST]}") from error
