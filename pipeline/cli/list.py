"""Lists versions and aliases of every model of params.yaml."""

from typing import TYPE_CHECKING

import click

from pipeline.cli._command import verb

if TYPE_CHECKING:
    from pipeline.registry import Registry

GROUP = "Register and review models"
ORDER = 51


@verb("tohum list")
def command() -> None:
    """Prints the table."""
    from pipeline import config
    from pipeline.cli._registry import opened

    with opened() as registry:
        click.echo(table(registry, tuple(config.load().evaluations)))


def table(registry: "Registry", models: tuple[str, ...]) -> str:
    """All versions with their aliases, approvals and states."""
    from pipeline.registry import CANDIDATE, CHAMPION, VERSION

    lines = [f"{'model':<28}{'version':>8}  {'alias':<20}{VERSION:<16}status"]
    for model in models:
        aliases = {alias: at.version for alias in (CANDIDATE, CHAMPION) if (at := registry.at(model, alias))}
        for version in registry.versions(model):
            names = ", ".join(alias for alias, number in aliases.items() if number == version.version)
            lines.append(
                f"{version.name:<28}{version.version:>8}  {names:<20}{version.tags.get(VERSION, '')[:12]:<16}"
                f"{version.tags.get('tohum.status', '')}"
            )
    return "\n".join(lines)
