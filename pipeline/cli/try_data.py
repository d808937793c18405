"""`make try DATA=file`: a user's own file through the whole graph with a small budget, in .tohum/try."""

import subprocess
import sys
from pathlib import Path

from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.paths import WORK
from pipeline.studies.guess import guess
from pipeline.studies.workspace import workspace

FOLDER = WORK / "try"


def main() -> None:
    """Guesses, says what was guessed, runs, and says what to change for a real run."""
    if len(sys.argv) != 2:
        raise UserError("which file? `make try DATA=file`, a txt, csv, tsv, json, jsonl or parquet file of yours")
    found = guess(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: guessed")
    print("\n".join(f"  {sentence}" for sentence in found.said))
    workspace(Path(sys.argv[1]), found, FOLDER)
    if not (FOLDER / ".dvc").exists():
        subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=FOLDER, check=True)
    done = subprocess.run(["dvc", "repro", "--quiet"], cwd=FOLDER, check=False)
    if done.returncode:
        raise UserError(f"the try stopped; what is said above holds for a real run too (work folder {FOLDER})")
    subprocess.run([sys.executable, "-m", "pipeline.cli.times"], cwd=FOLDER, check=True)
    print(
        f"\nA try has a small model and few steps, and its gates let everything pass: look at {FOLDER}/reports. For a "
        "real run:\n  1. make profile NAME=files, and name the file, its columns, licence and consent in params.yaml"
        "\n  2. set pretrain.model and pretrain.schedule to the size you can afford"
        "\n  3. make plan, then make repro; the gates will say what in the data must be mended"
    )


if __name__ == "__main__":
    entry(main)
