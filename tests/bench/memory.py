"""Memory and time of the data stages as the documents multiply, as JSON.

    python -m tests.bench.memory [--sizes 12000 120000 1200000] [--keep FOLDER] [--hashes]

For each size a folder of its own with the world of params.yaml at so many documents, all else as there, tracking off;
each stage a process of its own under the guard, as `dvc repro` runs it. Peak memory is that of its run record,
seconds are CPU seconds. `times` are figures over those of the first size, per stage. `--keep` leaves the folders (and
goes on from what one holds already: a stage with a run record is not run again); `--hashes` adds the SHA-256 of every
out, to compare two versions of the code.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from pipeline import files
from pipeline.paths import CODE as ROOT

STAGES = ("download", "validate raw", "tokenize", "validate tokens", "sample", "validate samples")
OUTS = ("data/raw", "data/tokens", "data/samples", "data/tickets", "reports/gates")


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[12_000, 120_000, 1_200_000])
    parser.add_argument("--keep", type=Path, help="where the folders go, and stay")
    parser.add_argument("--hashes", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        found = measured(options.keep or Path(name), options.sizes, options.hashes)
    print(json.dumps(found, indent=1))


def measured(where: Path, sizes: list[int], hashes: bool) -> dict[str, Any]:
    """Figures by size, and those of each size over those of the first."""
    rows: dict[int, dict[str, Any]] = {}
    digests: dict[int, dict[str, str]] = {}
    for size in sizes:
        project = made(where / str(size), size)
        rows[size] = {stage: run(project, stage) for stage in STAGES}
        if hashes:
            digests[size] = {out: files.sha256_of(project / out) for out in OUTS}
        print(f"{size}: {rows[size]}", file=sys.stderr, flush=True)
    times = {
        size: {
            stage: {name: round(figures[name] / rows[sizes[0]][stage][name], 2) for name in figures}
            for stage, figures in rows[size].items()
        }
        for size in sizes[1:]
    }
    return {"bench": "memory", "documents": rows, "times": times} | ({"sha256": digests} if hashes else {})


def made(folder: Path, documents: int) -> Path:
    """A project with the params of the repository and so many documents."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["runtime"]["tracking"]["enabled"] = False
    params["runtime"]["progress"] = False
    params["download"]["sources"]["world"]["documents"] = documents
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return folder


def run(project: Path, stage: str) -> dict[str, float]:
    """Peak memory in MiB and CPU seconds of one stage.

    Raises:
        SystemExit: the stage failed.
    """
    record = project / "reports" / "runs" / f"{stage.replace(' ', '@')}.json"
    if not record.exists():
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [
            sys.executable,
            "-P",
            str(ROOT / "pipeline/orchestration/guard.py"),
            *f"stages.{stage}".split(),
        ]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{stage}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    known = files.read_json(record)
    return {"peak_mib": known["peak_memory_mib"], "cpu_seconds": known["seconds_cpu"]}


if __name__ == "__main__":
    main()
