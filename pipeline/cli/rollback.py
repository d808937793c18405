"""Makes the champion before the champion again.

The decision, with your reason, is an entry of the ledger.
"""

import click

from pipeline.cli._command import verb

GROUP = "Register and review models"
ORDER = 54


@verb('tohum rollback spam-lora --reason "false alarms since Monday"')
@click.argument("model")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept with the decision.")
@click.option("--despite", default="", metavar="TEXT", help="Why, although that version was rejected since; kept too.")
def command(model: str, reason: str, despite: str) -> None:
    """Moves the alias back."""
    from pipeline.cli._registry import opened

    with opened() as registry:
        champion = registry.rollback(model, reason, despite=despite)
        click.echo(f"{champion.name}: version {champion.version} is the champion")
