"""Which method? A table of the methods that ran, with costs and advice; with a file, a short probe of all of them.

`make which` reads what has run (profile `methods`); `make which DATA=file` tries every method on your own file with few
steps and predicts the ranking; the next `make which` after a full run scores that prediction.
"""

import argparse
import contextlib
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline import config, files
from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.orchestration.process import beside, cores
from pipeline.paths import INPUTS, REPORTS, WORK
from pipeline.reporting import report
from pipeline.reporting.methods import Cost, Method, advice, agreement, cost, methods
from pipeline.studies.guess import guess
from pipeline.studies.probe import FULL, probe_params
from pipeline.studies.workspace import workspace

FOLDER = WORK / "which"
PREDICTION = WORK / "which.json"
PAGE = REPORTS / "which.html"


def main() -> None:
    """Shows, or probes and then shows."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.cli.which", description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, help="a csv, tsv, json, jsonl or parquet file of yours to probe")
    parser.add_argument("--run", metavar="RECIPE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run)
        return
    if options.data is None:
        show(Path())
        return
    found = guess(options.data)
    print(f"{options.data}: guessed\n" + "\n".join(f"  {sentence}" for sentence in found.said), flush=True)
    params = probe_params(INPUTS / options.data.name, found)
    workspace(options.data, found, FOLDER, params)
    if not (FOLDER / ".dvc").exists():
        subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=FOLDER, check=True)
    if subprocess.run(["dvc", "repro", "--quiet", "evaluate@base"], cwd=FOLDER, check=False).returncode:
        raise UserError(f"the probe stopped; what is said above holds for a full run too (work folder {FOLDER})")
    probe(list(params["finetune"]))
    ranked = show(FOLDER)
    prediction = {"data": options.data.name, "score": ranked[0].score, "ranking": [method.name for method in ranked]}
    files.write_json(PREDICTION, prediction)
    print(
        "\nA probe has a small model and few steps: it predicts the ranking, no score. For the full run: make profile "
        f"NAME='files {FULL[found.kind]}', name your file in params.yaml, make repro; then `make which` scores this "
        "prediction."
    )


def probe(names: list[str]) -> None:
    """Trains and measures every recipe in the probe's folder, one a core at a time, each in a process of its own.

    Raises:
        UserError: one of them stopped; the others are ended.
    """
    with contextlib.chdir(FOLDER):
        beside({name: ["pipeline.cli.which", "--run", name] for name in names}, cores())


def run(name: str) -> None:
    """One recipe, trained and measured, in the working directory."""
    from stages import evaluate, finetune

    sys.argv = ["which", name]
    finetune.main()
    evaluate.main()


def show(root: Path) -> list[Method]:
    """Prints the table, writes reports/which.html; returns the methods, best first."""
    with contextlib.chdir(root):
        found = methods(report.all_models(config.load()))
        if not found:
            raise UserError(
                "params.yaml: no recipe is one of several seeds (named lora-s1, lora-s2...); run profile `methods` "
                "first (make profile NAME=methods, make repro), or probe a file (make which DATA=file)"
            )
        runs = {path.stem.removeprefix("finetune@"): path for path in report.REPORTS.glob("runs/finetune@*.json")}
        records = {name: files.read_json(path) for name, path in runs.items()}
        # what a meter reads belongs to all that ran beside each other
        metered = root == Path()
        costs = {method.name: spent for method in found if (spent := cost(method, records, metered))}
        said = " ".join([advice(found), *scored(found)])
        files.write_text(PAGE, report.render_which(found, costs, said))
    console = Console()
    console.print(table(found, costs))
    console.print(said, f"\n\npage: {root / PAGE}")
    return found


def scored(found: list[Method]) -> list[str]:
    """How well the last probe foretold this ranking, as a sentence; nothing where there was none of such records."""
    if not PREDICTION.exists():
        return []
    predicted = files.read_json(PREDICTION)
    value, names = agreement(predicted["ranking"], found)
    if value != value or predicted.get("score") != found[0].score:
        return []
    return [
        f"The probe of {predicted['data']} foretold this ranking of {len(names)} methods with a rank correlation of "
        f"{value:+.2f} (1: exactly, 0: not at all)."
    ]


def table(found: list[Method], costs: dict[str, Cost]) -> Table:
    """Score with spread, trained share, forgetting, time, memory and energy of every method."""
    estimated = "" if all(spent.measured for spent in costs.values()) else " est."
    columns = ("method", "mean", "spread", "trained", "forgets", "seconds", "MiB", f"Wh{estimated}")
    made = Table(*columns, title=", ".join(sorted({method.score for method in found})))
    for method in found:
        spent = costs.get(method.name)
        made.add_row(
            method.name, f"{method.mean:.3f}", f"{method.spread:.3f}",
            f"{100 * method.trained_share:.2f} %",
            "" if method.forgotten is None else f"{method.forgotten:+.3f}",
            *(("", "", "") if spent is None else (
                f"{spent.seconds:.1f}", f"{spent.peak_memory_mib:.0f}",
                f"{spent.energy_wh:.4f}",
            )),
        )  # fmt: skip
    return made


if __name__ == "__main__":
    entry(main)
