"""The SQLite file behind a tracking address such as `sqlite:///mlflow.db`: is it there, can it be a database at all.

MLflow itself waits a minute and a half for a file that can never be opened, and says so in five lines.
"""

from pathlib import Path

_SCHEME = "sqlite:///"
_MAGIC = b"SQLite format 3\0"


def path_of(uri: str) -> Path | None:
    """The file of a SQLite address; None for a server's or another database's."""
    return Path(uri.removeprefix(_SCHEME).partition("?")[0]) if uri.startswith(_SCHEME) else None


def is_gone(uri: str) -> bool:
    """Whether the address is a file and nothing is there."""
    path = path_of(uri)
    return path is not None and not path.exists()


def problem(uri: str) -> str:
    """Why the file cannot be a database; "" where it may be one, is not there yet, or is no file at all."""
    path = path_of(uri)
    if path is None or not path.exists():
        return ""
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_MAGIC))
    except OSError as error:
        return str(error.strerror)
    return "" if head in (b"", _MAGIC) else "its first bytes are not those of a SQLite file"


def advice(uri: str, why: str) -> str:
    """One sentence: the store, why it cannot be used, and how its content is had again."""
    path = path_of(uri)
    if path is None:
        return f"{uri}: MLflow cannot use this database ({why}); mend it, or restore it from a copy"
    return (
        f"{path}: not a database that this MLflow can use ({why}); move it away (`mv {path} {path.name}.damaged`) and "
        "run `tohum deliver`: all runs are kept in .tohum/tracking and go to a new one"
    )
