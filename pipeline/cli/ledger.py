"""Shows the decisions on a model, and checks their chain.

The heads that are noted in git show whether its end was cut off.

Exits with 1 where an entry was edited, removed, reordered or cut off, or where git notes decisions of another ledger
that this one does not hold. --accept ID takes this store's ledger beside that one, with your reason. --json prints
every field, with the figures and the policy's result that each person saw.
"""

import json
from typing import TYPE_CHECKING

import click

from pipeline.cli._command import verb

if TYPE_CHECKING:
    from pipeline.registry import Registry

GROUP = "Register and review models"
ORDER = 55


@verb("tohum ledger spam-lora", "tohum ledger models:/fraud --json")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Every field of every entry as JSON.")
@click.option("--accept", default="", metavar="ID", help="Another ledger that git notes: this store's is right, too.")
@click.option("--reason", default="", metavar="TEXT", help="With --accept: why; kept in git's notes.")
def command(model: str, as_json: bool, accept: str, reason: str) -> int:
    """Prints a line per entry."""
    from pipeline.cli._registry import opened

    if bool(accept) != bool(reason.strip()):
        raise click.UsageError("--accept ID and --reason TEXT go together")
    with opened() as registry:
        name = registry.name(model)
        if accept:
            registry.ledger.accept(name, accept, registry.person().who, reason)
        chain = registry.ledger.chain(name)
        if as_json:
            click.echo(json.dumps([entry.json() for entry in chain.entries], indent=2, ensure_ascii=False))
        else:
            click.echo(_table(registry, name))
        for problem in chain.problems:
            click.echo(f"error: {name}: {problem}", err=True)
    return 1 if chain.problems else 0


def _table(registry: "Registry", name: str) -> str:
    """Number, decision, version, person and reason of each entry; then the head and the noted heads."""
    from pipeline.registry import anchors

    chain = registry.ledger.chain(name)
    if not chain.entries:
        return f"{name}: no decision yet"
    lines = []
    for entry in chain.entries:
        despite = f"; despite: {entry.despite}" if entry.despite else ""
        lines.append(
            f"{entry.n:>4}  {entry.when}  {entry.action} version {entry.version} by {entry.by}: {entry.why}{despite}"
        )
    noted, others = anchors.read(registry.ledger.id)
    last = max((anchor.n for anchor in noted if anchor.model == name), default=0)
    lines.append(f"head {chain.head}")
    if last < chain.entries[-1].n:
        lines.append(
            f"noted in {anchors.REF} of this repository: up to entry {last} of {chain.entries[-1].n}; only noted "
            f"entries are protected from being cut off: git fetch origin {anchors.REF}:{anchors.REF}"
        )
    else:
        lines.append(f"noted in {anchors.REF} of this repository: all")
    if others:
        lines.append(
            f"warning: this repository also notes decisions of another ledger ({', '.join(sorted(others))}); "
            f"this store's is {registry.ledger.id}"
        )
    return "\n".join(lines)
