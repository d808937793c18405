"""Records that a version may not be the champion.

The decision, with your reason, is an entry of the ledger.

It can be approved later with `tohum promote ... --despite TEXT`.
"""

import click

from pipeline.cli._command import verb

GROUP = "Register and review models"
ORDER = 54


@verb('tohum reject spam-lora 3 --reason "answers in the wrong language"')
@click.argument("model")
@click.argument("version")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept with the decision.")
@click.option("--via", default="", hidden=True)
def command(model: str, version: str, reason: str, via: str) -> None:
    """Writes the entry; no alias moves."""
    from pipeline.cli._registry import opened

    with opened() as registry:
        rejected = registry.reject(model, version, reason, by=registry.person(via))
        click.echo(f"{rejected.name}: version {rejected.version} is rejected")
