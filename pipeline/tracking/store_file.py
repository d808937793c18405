"""Checks of the SQLite file behind a tracking URI (`sqlite:///mlflow.db`): whether it exists and can be a database.

MLflow itself waits a minute and a half for a file that can never be opened, and reports it in five lines.
"""

from pathlib import Path

_SCHEME = "sqlite:///"
_MAGIC = b"SQLite format 3\0"


def path_of(uri: str) -> Path | None:
    """The file of a SQLite URI; None for a server or another database."""
    return Path(uri.removeprefix(_SCHEME).partition("?")[0]) if uri.startswith(_SCHEME) else None


def is_gone(uri: str) -> bool:
    """Whether the URI is a file's and the file does not exist."""
    path = path_of(uri)
    return path is not None and not path.exists()


def problem(uri: str) -> str:
    """The reason why the file cannot be a database; "" where it may be one, does not exist, or the URI is no file's."""
    path = path_of(uri)
    if path is None or not path.exists():
        return ""
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_MAGIC))
    except OSError as error:
        return str(error.strerror)
    return "" if head in (b"", _MAGIC) else "its first bytes are not a SQLite header"


def advice(uri: str, why: str) -> str:
    """One sentence: the store, the reason why it cannot be used, and the way to restore its content."""
    path = path_of(uri)
    if path is None:
        return f"{uri}: MLflow cannot use this database ({why}); fix it, or restore it from a copy"
    return (
        f"{path}: not a database that this MLflow can use ({why}); move it away (`mv {path} {path.name}.damaged`) and "
        "run `tohum deliver`: all runs are kept in .tohum/tracking and go to a new one"
    )
