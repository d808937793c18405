"""The promises of the README under many random faults: one program for each, its result beside it as JSON.

    make torture                                        all of them, half an hour or more
    python -m tests.torture flipped_bits fsck           some of them
    python -m tests.torture.flipped_bits --count 20     one, shorter, printed and not kept

CI tries one fault of each kind (in the tests of the parts themselves); here are the counts. A program has a `PROMISE`,
a `COUNT` and `run(count, folder)`, which gives `{"tried": n, "held": n, "misses": [...], ...}`. Faults are drawn from
a fixed seed, so a miss can be found again.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[[int, Path], dict[str, Any]]


def main(run: Run, count: int, promise: str) -> None:
    """Runs one program in a temporary folder, prints its result as JSON; exit code 1 if the promise was broken once."""
    parser = argparse.ArgumentParser(description=promise)
    parser.add_argument("--count", type=int, default=count, help=f"faults to try (default: {count})")
    chosen = parser.parse_args().count
    with tempfile.TemporaryDirectory(prefix="tohum-torture-") as folder:
        found = run(chosen, Path(folder))
    print(json.dumps({"promise": promise} | found, indent=1, ensure_ascii=False))
    sys.exit(0 if found["tried"] and found["held"] == found["tried"] else 1)
