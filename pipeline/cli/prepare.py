"""Restores files that a killed run changed; checks params.yaml.

`make repro` begins with it. A flow run with a profile or settings of its own changes params.yaml while it runs; after a
killed run the original is restored. DVC's lock files are repaired where a kill cut them off.
"""

import click

from pipeline.cli._command import verb

GROUP = "Run the pipeline"
ORDER = 12


@verb("tohum prepare && dvc repro")
def command() -> None:
    """Restores, repairs, checks."""
    from pipeline import config
    from pipeline.orchestration import checkout, dvc_lock

    for line in [*checkout.put_back("of `tohum prepare`"), *dvc_lock.repair()]:
        click.echo(line)
    config.load()
