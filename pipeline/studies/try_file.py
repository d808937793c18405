"""A try of a user's own file: the whole graph with a small model and few steps, in .tohum/try."""

import textwrap
from pathlib import Path

from pipeline.paths import INPUTS, WORK
from pipeline.studies.guess import Guess
from pipeline.studies.workspace import repro, workspace

FOLDER = WORK / "try"


def run(data: Path, guessed: Guess) -> None:
    """Prints the guesses about the file with the source they make in params.yaml, and runs the graph on it.

    Raises:
        UserError: a stage failed.
    """
    print(f"{data}: guessed")
    print("\n".join(f"  {sentence}" for sentence in guessed.sentences))
    print(f"in params.yaml:\n{textwrap.indent(guessed.block(INPUTS / data.name), '  ')}", flush=True)
    workspace(data, guessed, FOLDER)
    repro(FOLDER)
