"""A `dvc repro` that has nothing to do, beside one over an empty graph of as many stages, as JSON.

    python -m tests.bench.noop [--project .] [--rounds 5]

The project must be reproduced (dvc.lock beside its dvc.yaml, outs in place); otherwise the bench says so. Each stage of
the empty graph reads the file of the one before and writes one of its own. Wall clock in turns, medians.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.noop", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    lock = options.project / "dvc.lock"
    if not lock.exists():
        print(json.dumps({"bench": "noop", "skipped": f"{lock} is not there: dvc repro first"}))
        return
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name)
        made(empty, len(stages))
        seconds: dict[str, list[float]] = {"project": [], "empty": []}
        for turn in range(options.rounds + 1):
            for who, folder in (("project", options.project), ("empty", empty)):
                took = repro(folder)
                if turn:  # the first reads the files in
                    seconds[who].append(took)
    found: dict[str, Any] = {who: round(statistics.median(times), 2) for who, times in seconds.items()}
    more = round(statistics.median(p - e for p, e in zip(seconds["project"], seconds["empty"], strict=True)), 2)
    print(json.dumps({"bench": "noop", "stages": len(stages), "seconds": found, "more_seconds": more}))


def made(folder: Path, stages: int) -> None:
    """An empty graph, reproduced once."""
    chain: dict[str, Any] = {}
    for number in range(stages):
        chain[f"stage{number}"] = {
            "cmd": f"echo {number} > out{number}",
            "deps": [f"out{number - 1}"] if number else [],
            "outs": [f"out{number}"],
        }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": chain}))
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    subprocess.run(["dvc", "config", "core.analytics", "false"], cwd=folder, check=True)
    repro(folder)


def repro(folder: Path) -> float:
    """Seconds of `dvc repro` in that folder.

    Raises:
        SystemExit: it had something to do, or failed.
    """
    began = time.perf_counter()
    done = subprocess.run(["dvc", "repro"], cwd=folder, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if done.returncode or ("Running stage" in done.stdout and folder.joinpath("models").exists()):
        raise SystemExit(f"{folder}: `dvc repro` was not idle\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return took


if __name__ == "__main__":
    main()
