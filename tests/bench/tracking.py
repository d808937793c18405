"""What a line of tracking costs the training that writes it, as JSON: `python -m tests.bench.tracking`."""

import json
import os
import tempfile
import time

from pipeline.tracking.tracker import FileTracker, NullTracker

LINES = 5000


def main() -> None:
    """Prints microseconds a call of three metrics, beside a step of the embedded default (about 0.25 s)."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, run in (("null", NullTracker()), ("jsonl", FileTracker({"stage": "bench"}))):
            began = time.perf_counter()
            for step in range(LINES):
                run.log({"loss_nats": 1.0, "learning_rate": 1e-3, "tokens_per_second": 1.0}, step=step)
            each = (time.perf_counter() - began) / LINES
            print(json.dumps({"bench": "tracking", "tracker": name, "microseconds_per_log": round(each * 1e6, 2)}))


if __name__ == "__main__":
    main()
