"""Checks that every champion is the one that the ledger names.

Repairs aliases that were moved by hand, and adopts champions from before the ledger.

check: names every registered model of the store, of this project or not, whose alias `champion` was moved or set
without a decision, or whose ledger is damaged, and exits with 1. With --repair the alias goes back to the ledger's
champion. adopt: takes the champion from before there was a ledger into it, as a decision of yours.
"""

import click

from pipeline.cli._command import verb

GROUP = "Register and review models"
ORDER = 58


@verb(
    "tohum registry check",
    "tohum registry check spam-lora --repair",
    'tohum registry adopt spam-lora --reason "approved in March, before the ledger"',
)
@click.argument("action", type=click.Choice(["check", "adopt"]), metavar="check|adopt")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--repair", is_flag=True, help="With check: move the aliases back.")
@click.option("--reason", default="", metavar="TEXT", help="With adopt: why; kept with the decision.")
def command(action: str, models: tuple[str, ...], repair: bool, reason: str) -> int:
    """Checks the models of the store, or adopts the named ones."""
    if action == "adopt" and (repair or not models or not reason):
        raise click.UsageError("adopt needs MODEL and --reason TEXT, and takes no --repair")
    if action == "check" and reason:
        raise click.UsageError("--reason goes with adopt")
    return _adopt(models, reason) if action == "adopt" else _check(models, repair)


def _adopt(models: tuple[str, ...], reason: str) -> int:
    from pipeline.cli._registry import opened

    with opened() as registry:
        for model in models:
            champion = registry.adopt(model, reason)
            click.echo(f"{champion.name}: version {champion.version} is the champion, adopted into the ledger")
    return 0


def _check(models: tuple[str, ...], repair: bool) -> int:
    from pipeline.cli._registry import opened
    from pipeline.errors import UserError

    with opened() as registry:
        wrong = registry.check(models)
        left = 0
        for name, reason in wrong.items():
            if repair:
                try:
                    champion = registry.repair(f"models:/{name}")
                    if not registry.check([f"models:/{name}"]) and champion is not None:
                        click.echo(f"{name}: {reason}; put back: version {champion.version} is the champion")
                        continue
                except UserError as error:
                    reason = str(error).removeprefix(f"{name}: ")
            left += 1
            click.echo(f"error: {name}: {reason}", err=True)
        if not wrong:
            click.echo("every champion is the one the ledger says")
    return 1 if left else 0
