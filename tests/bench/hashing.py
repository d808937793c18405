"""CPU time that comparing recorded hashes takes of each data stage: `python -m tests.bench.hashing [--documents N]`.

Runs download to the samples gate on the embedded default in a temporary folder. `share` is the time in
pipeline/integrity.py (reading and hashing inputs, hashing outs for their manifest) by the CPU time of the whole stage.
A training reads its inputs' hashes a second time for the fingerprint of its state, from the same reading.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from pipeline import files, integrity
from tests.damage import ROOT, run

STAGES = ("download", "validate raw", "tokenize", "validate tokens", "sample", "validate samples")
TIMED = ("write_manifest", "require_intact", "admits", "_combined")
"""The outermost calls are counted; what they call in turn is part of them."""


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hashing", description=__doc__)
    parser.add_argument("--documents", type=int, default=12_000)
    documents = parser.parse_args().documents
    clock = _Clock()
    for name in TIMED:
        setattr(integrity, name, clock.around(getattr(integrity, name)))
    sys.modules["pipeline.data.samples"].write_manifest = integrity.write_manifest  # type: ignore[attr-defined]
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["runtime"]["progress"] = raw["runtime"]["tracking"]["enabled"] = False
    raw["download"]["sources"]["world"]["documents"] = documents
    shares: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        for stage in STAGES:
            time.sleep(files.SETTLED_S + 0.5)  # a stage's start: what the one before wrote is read once, not twice
            clock.seconds, began = 0.0, time.process_time()
            with redirect_stdout(StringIO()):
                run(stage)
            spent = time.process_time() - began
            shares[stage] = {"seconds": round(spent, 2), "share": round(clock.seconds / spent, 5)}
        size = sum(path.stat().st_size for path in Path("data").rglob("*") if path.is_file())
        os.chdir(ROOT)
    print(json.dumps({"documents": documents, "data_mb": round(size / 1e6, 1), "stages": shares}, indent=1))


class _Clock:
    def __init__(self) -> None:
        self.seconds, self._inside = 0.0, False

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            if self._inside:
                return call(*arguments, **named)
            self._inside, began = True, time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                self._inside, self.seconds = False, self.seconds + time.thread_time() - began

        return timed


if __name__ == "__main__":
    import pipeline.data.samples  # noqa: F401 - its own name of write_manifest is replaced too

    main()
