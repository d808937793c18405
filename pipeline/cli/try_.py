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


@verb("tohum try messages.csv")
@click.argument("data", type=UserPath(), metavar="FILE")
def command(data: Path) -> None:
    """Guesses, runs the graph, shows the scores and the steps to a real run."""
    from pipeline.studies import try_file

    try_file.run(data)
    subprocess.run([sys.executable, "-m", __package__, "scores"], cwd=try_file.FOLDER, check=True)
    click.echo(
        f"\nA try has a small model, few steps and open gates: look at {try_file.FOLDER}/reports. For a "
        "real run:\n  1. tohum profile files, and name the file, its columns, licence and consent in params.yaml"
        "\n  2. set pretrain.model and pretrain.schedule to the size you can afford"
        "\n  3. tohum plan, then make repro; the gates name the data to be mended"
    )
