"""Four of the sixteen reviewers: one process in one checkout, all of whose decisions are made at the same moment.

    python -m tests.registry.reviewers FOLDER NAME COUNT < params.json

Each has read the ledger, and the process has read the version's files; then all wait until FOLDER/go is there, and
write their entry. Prints a JSON list of what each was told; an empty text is the winner's.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.registry import VERSION, Registry

MODEL = "spam-full"


def main(params: Params, folder: Path, name: str, count: int) -> None:
    """Decides `count` times at once in the working folder."""
    said = [""] * count
    (version,) = Registry(params).versions(MODEL)
    seen = Registry(params)._seen(version)

    def review(number: int) -> None:
        registry: Any = Registry(params)
        registry._seen = lambda version: seen
        append = registry.ledger.append

        def wait_and_append(entry: Any) -> None:
            (folder / f"{name}-{number}").touch()
            while not (folder / "go").exists():
                time.sleep(0.01)
            append(entry)

        registry.ledger.append = wait_and_append
        try:
            registry.promote(MODEL, version.version, version.tags[VERSION], f"{name} {number}")
        except Exception as error:  # any but a sentence for the user fails the test
            said[number] = str(error) if isinstance(error, UserError) else repr(error)

    threads = [threading.Thread(target=review, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(said))


if __name__ == "__main__":
    main(Params.model_validate_json(sys.stdin.read()), Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
