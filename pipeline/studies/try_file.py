"""A try of a user's own file: the whole graph with a small model and few steps, in .tohum/try."""

from pathlib import Path

from pipeline.paths import WORK
from pipeline.studies.guess import guess
from pipeline.studies.workspace import repro, workspace

FOLDER = WORK / "try"


def run(data: Path) -> None:
    """Prints the guesses about the file and runs the graph on it.

    Raises:
        UserError: a file in which nothing can be recognised, or a stage that failed.
    """
    guessed = guess(data)
    print(f"{data}: guessed")
    print("\n".join(f"  {sentence}" for sentence in guessed.sentences), flush=True)
    workspace(data, guessed, FOLDER)
    repro(FOLDER)
