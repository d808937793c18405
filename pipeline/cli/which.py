"""Compares fine-tuning methods, or probes them on your own file.

Without a file it reads the models of this project (profile `methods`). With one it tries every method on the file with
few steps and predicts their ranking; after a full run `tohum which` scores that prediction.
"""

import sys
from pathlib import Path

import click

from pipeline.cli._command import UserPath, verb

GROUP = "Try your own data"
ORDER = 21
AGAIN = "the data and the base model are kept in .tohum/which; the same command continues with the methods"


@verb("tohum which", "tohum which messages.csv")
@click.argument("data", type=UserPath(), metavar="[FILE]", required=False)
@click.option("--run", "recipe", metavar="RECIPE", hidden=True)
def command(data: Path | None, recipe: str | None) -> None:
    """Shows the table, or probes a file and then shows it."""
    if recipe is not None:
        run(recipe)
        return
    from pipeline.studies import which

    if data is None:
        which.show(Path())
    else:
        which.predict(data, lambda name: [__package__, "which", "--run", name])


def run(recipe: str) -> None:
    """Trains and measures one recipe in the working folder: a process of the probe."""
    from stages import evaluate, finetune

    sys.argv = ["which", recipe]
    finetune.main()
    evaluate.main()
