"""The registry of this project, opened for a verb."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline import config
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.registry import Registry


@contextmanager
def opened() -> "Iterator[Registry]":
    """The registry that params.yaml names. Raises UserError where its server or file cannot be read."""
    from pipeline.registry import Registry, reachable  # mlflow costs 3 s

    params = config.load()
    try:
        with reachable(params.runtime.tracking.uri):
            yield Registry(params)
    except OSError as error:
        raise UserError(str(error)) from None
