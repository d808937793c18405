"""Does the default hold on other machines? Every recipe of params.yaml over ten seeds, beside its thresholds.

    python -m tests.bench.seeds                    # ten seeds, two at a time on one thread each
    python -m tests.bench.seeds --seeds 3 --lanes 1

Another processor rounds differently, which changes a small model about as much as another seed does; a newcomer's first
run must pass all the same. Each seed draws the base and every recipe anew; data, splits and vocabulary stay. Prints
JSON: per threshold its scores, their mean and standard deviation, and how many deviations the mean lies on the right
side of the threshold. Exit code 1 if one is below two.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from pipeline.paths import CODE as ROOT

DEVIATIONS = 2.0


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.seeds", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--lanes", type=int, default=2, help="seeds side by side, each on one thread")
    given = parser.parse_args()
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="tohum-seeds-") as folder, ThreadPoolExecutor(given.lanes) as pool:
        first = _project(Path(folder) / "1", params, 1)
        _run(first, ["sample"])  # once for all: the other projects start with its data
        roots = [first, *(_copy(first, params, seed) for seed in range(2, given.seeds + 1))]
        scores = list(pool.map(_scores, roots))
    rows = [
        _row(f"{model}.{metric}", bound, [score[model][metric] for score in scores])
        for model, evaluation in params["evaluations"].items()
        for metric, bound in evaluation["thresholds"].items()
    ]
    print(json.dumps({"seeds": given.seeds, "thresholds": rows}, indent=1))
    return 0 if all(row["deviations_above"] >= DEVIATIONS for row in rows) else 1


def _row(name: str, bound: dict[str, float | None], values: list[float]) -> dict[str, Any]:
    mean, deviation = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    sides = [(mean - bound["at_least"]) if bound["at_least"] is not None else None,
             (bound["at_most"] - mean) if bound["at_most"] is not None else None]  # fmt: skip
    margin = min((side for side in sides if side is not None), default=math.inf)
    return {
        "threshold": name, "bound": bound, "mean": round(mean, 4), "standard_deviation": round(deviation, 4),
        "deviations_above": round(margin / deviation, 1) if deviation else math.copysign(999.0, margin),
        "scores": [round(value, 4) for value in values],
    }  # fmt: skip


def _project(root: Path, params: dict[str, Any], seed: int) -> Path:
    root.mkdir()
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    (root / "inputs").mkdir()
    _seeded(root, params, seed)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=root, check=True)
    return root


def _copy(first: Path, params: dict[str, Any], seed: int) -> Path:
    root = first.with_name(str(seed))
    shutil.copytree(first, root)
    _seeded(root, params, seed)
    return root


def _seeded(root: Path, params: dict[str, Any], seed: int) -> None:
    changed = json.loads(json.dumps(params))
    changed["compute"]["threads"] = 1
    changed["runtime"] |= {"progress": False, "tracking": changed["runtime"]["tracking"] | {"enabled": False}}
    for recipe in (changed["pretrain"], *changed["finetune"].values()):
        recipe["seed"] = seed
    (root / "params.yaml").write_text(yaml.safe_dump(changed, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _scores(root: Path) -> dict[str, dict[str, float]]:
    """Model -> its metrics, once its graph has run up to the evaluations."""
    _run(root, ["evaluate"])
    print(f"seed {root.name} is done", file=sys.stderr, flush=True)
    folder = root / "reports/evaluation"
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/metrics.json")}


def _run(root: Path, targets: list[str]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        ["dvc", "repro", "--quiet", *targets], cwd=root, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"seed {root.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
