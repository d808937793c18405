"""Four of the sixteen reviewers: one process in one checkout, all of whose decisions are made at the same moment.

    python -m tests.registry.reviewers URI FOLDER NAME COUNT

Each has reviewed and read the ledger; then all wait until FOLDER/go is there, and write their entry. Prints a JSON list
of what each was told; an empty text is the winner's.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.registry import VERSION, Registry
from tests.registries import params

MODEL = "spam-full"


def main(uri: str, folder: Path, name: str, count: int) -> None:
    """Decides `count` times at once in the working folder."""
    said = [""] * count

    def review(number: int) -> None:
        registry: Any = Registry(params(uri))
        (version,) = registry.versions(MODEL)
        append = registry.ledger.append

        def wait_and_append(entry: Any) -> None:
            (folder / f"{name}-{number}").touch()
            while not (folder / "go").exists():
                time.sleep(0.01)
            append(entry)

        registry.ledger.append = wait_and_append
        try:
            registry.promote(MODEL, version.version, version.tags[VERSION], f"{name} {number}")
        except UserError as error:
            said[number] = str(error)

    threads = [threading.Thread(target=review, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
