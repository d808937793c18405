"""Runs the whole graph on your own file in minutes.

A small model, few steps, in .tohum/try. DATA is a txt, csv, tsv, json, jsonl, parquet, arrow or xlsx file, a folder, a
pattern, a zip archive, or a folder that `datasets` saved. Its format, encoding and columns are guessed, and each guess
is printed with the key of params.yaml that sets it for a real run. Splits, vocabulary, context, batches and updates are
sized to the data, each with its reason, and the expected duration is stated before the run.

With --base FOLDER, a released model's folder, it compares what can be done with that model instead (`tohum which`): the
last sentence says which method to take, or not to fine-tune at all.
"""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import click

from pipeline.cli._command import UserPath, verb
from pipeline.config.recipe import Kind

GROUP = "Try your own data"
ORDER = 20
AGAIN = "finished stages and the state of a training are kept in .tohum/try; the same command continues"


@verb(
    "tohum try messages.csv",
    "tohum try export.xlsx --text Mesaj --label Konu",
    "tohum try chats.jsonl --guess",
    "tohum try messages.csv --base inputs/SmolLM2-135M-Instruct.Q4_1",
)
@click.argument("data", type=UserPath(), metavar="DATA", nargs=-1, required=True)
@click.option(
    "--text",
    metavar="COLUMN",
    help="Column of the text, or of the question with --kind instructions; several: '{title}\\n{body}'.",
)
@click.option("--label", metavar="COLUMN", help="Column of the label; of the answer with --kind instructions.")
@click.option("--kind", type=click.Choice(get_args(Kind)), help="Kind of the records.")
@click.option("--base", type=UserPath(), metavar="FOLDER", help="A released model's folder: compare methods on it.")
@click.option("--minutes", type=click.FloatRange(min=0.1), help="With --base: budget of trainings and prompts.")
@click.option("--guess", "only_guess", is_flag=True, help="Prints the guess as JSON and stops.")
@click.option("--write", is_flag=True, help="Adds the data to inputs/ and to download.sources of params.yaml.")
def command(  # noqa: PLR0913 - each is an option of the command line
    data: tuple[Path, ...],
    text: str | None,
    label: str | None,
    kind: Kind | None,
    base: Path | None,
    minutes: float | None,
    only_guess: bool,
    write: bool,
) -> None:
    """Guesses, runs the graph, shows the scores and the steps to a real run."""
    from pipeline.studies import try_file
    from pipeline.studies.guess import Wishes, guess
    from pipeline.studies.guess.write import write_source

    if base is None and minutes is not None:
        raise click.UsageError("--minutes needs --base FOLDER")
    wishes = Wishes(text, label, kind, _ask if sys.stdin.isatty() else None)
    guessed = guess(data, wishes)
    if write:
        click.echo(write_source(guessed), err=only_guess)
    if only_guess:
        click.echo(guessed.as_json())
        return
    if base is not None:
        from pipeline.studies import comparison

        comparison.run(data[0], guessed, base, minutes)
        return
    try_file.run(data[0], guessed)
    for name in ("deliver", "scores"):  # the runs are in MLflow before `tohum ui` is named
        subprocess.run([sys.executable, "-m", __package__, "--project", str(try_file.FOLDER), name], check=False)
    click.echo("\n".join(try_file.closing(data, wishes)))


def _ask(question: str, choices: list[str]) -> str:
    """Asks on the terminal, on standard error: --guess writes JSON to standard output."""
    answer: str = click.prompt(question, type=click.Choice(choices), err=True)
    return answer
