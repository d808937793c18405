"""The verbs: one thin script per DVC stage, run as `python -m stages.<name>`.

`entry` is what they share: quiet tools, and every failure a sentence and an exit code instead of a traceback.
"""

import errno
import os
import sys
from collections.abc import Callable, Collection
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

# Telemetry of every tool off, before any of them is imported.
QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class _Absent(MetaPathFinder, Loader):
    """Modules that are there for whoever looks, and fail for whoever imports them, as if broken."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        """A spec for the absent ones; none for all others, which somebody else may find."""
        return ModuleSpec(fullname, self) if fullname in self._names else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Raises ModuleNotFoundError, which libraries with an optional import expect."""
        raise ModuleNotFoundError(f"{spec.name} is left out of this stage", name=spec.name)


def entry(
    main: Callable[[], None], without: Collection[str] = (), again: str = "the next `dvc repro` continues"
) -> None:
    """Runs a stage's main and exits: 0 done, 1 the user must mend something, 130 interrupted.

    `without` names modules that a library would import in passing and this stage has no use for: Arrow asks for pandas
    at every conversion, half a second, and does without it where it cannot be imported. `again` is said of what was
    interrupted.
    """
    from pipeline.config import UserError  # the guard lives in this package too and should start at once

    os.environ.update(QUIET)
    sys.meta_path.insert(0, _Absent(without))
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"error: interrupted; {again}", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise
        where = error.filename or "a file"
        print(f"error: {where}: {error.strerror}; free space or rights, then run again", file=sys.stderr)
        sys.exit(1)
