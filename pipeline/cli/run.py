"""Runs a command with the servers' addresses and passwords."""

import os

import click

from pipeline.cli._command import verb

GROUP = "Servers and tracking"
ORDER = 63


@verb(
    "tohum run prefect deployment run tohum/local",
    "tohum run python my_notebook.py",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGUMENT]...")
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Becomes the command, in the folder where the user called."""
    from pipeline.orchestration import servers

    environment = servers.client_environment()
    if (called_in := context.find_root().obj) is not None:
        os.chdir(called_in)
    servers.become(words, environment)
