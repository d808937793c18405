"""Runs the whole graph on your own file in minutes.

A small model, few steps, in .tohum/try. The file is a txt, csv, tsv, json, jsonl or parquet file. Its format and
columns are guessed, and each guess is printed with the key of params.yaml that sets it for a real run.
"""

import subprocess
import sys
from pathlib import Path

import click

from pipeline.cli._command import UserPath, verb

GROUP = "Try your own data"
ORDER = 20
AGAIN = "finished stages and the state of a training are kept in .tohum/try; the same command continues"


@verb("tohum try messages.csv")
@click.argument("data", type=UserPath(), metavar="FILE")
def command(data: Path) -> None:
    """Guesses, runs the graph, shows the scores and the steps to a real run."""
    from pipeline.studies import try_file

    try_file.run(data)
    for name in ("deliver", "scores"):  # the runs are in MLflow before `tohum ui` is named
        subprocess.run([sys.executable, "-m", __package__, "--project", str(try_file.FOLDER), name], check=False)
    click.echo("\n".join(try_file.closing(data)))
