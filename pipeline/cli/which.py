"""Compares fine-tuning methods, or probes them on your own file.

Without a file it reads the models of this project (profile `methods`). With one it tries every method on the file with
few steps and predicts their ranking; after a full run `tohum which` scores that prediction.

With a file and --base it compares everything that can be done with a released model: TF-IDF with logistic regression,
nearest neighbours on its embeddings, prompts with 0, 4 and 8 examples, LoRA, full fine-tuning, and a small model from
scratch, in one table. The last sentence says which to take, or not to fine-tune at all.
"""

import sys
from pathlib import Path

import click

from pipeline.cli._command import UserPath, verb

GROUP = "Try your own data"
ORDER = 21
AGAIN = "the data and the base model are kept in .tohum/which; the same command continues with the methods"


@verb("tohum which", "tohum which messages.csv", "tohum which messages.csv --base inputs/SmolLM2-135M-Instruct.Q4_1")
@click.argument("data", type=UserPath(), metavar="[FILE]", required=False)
@click.option("--base", type=UserPath(), metavar="FOLDER", help="A released model's folder to start from.")
@click.option("--minutes", type=click.FloatRange(min=0.1), help="With --base: budget of trainings and prompts.")
@click.option("--run", "recipe", metavar="RECIPE", hidden=True)
def command(data: Path | None, base: Path | None, minutes: float | None, recipe: str | None) -> None:
    """Shows the table, or probes a file and then shows it."""
    if recipe is not None:
        run(recipe)
        return
    if base is None and minutes is not None:
        raise click.UsageError("--minutes needs --base FOLDER")
    if base is not None:
        if data is None:
            raise click.UsageError("--base needs FILE, the records to compare methods on")
        from pipeline.studies import comparison
        from pipeline.studies.guess import guess

        comparison.run(data, guess(data), base, minutes)
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
