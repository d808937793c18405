"""Runs PostgreSQL, MLflow and Prefect in the background.

They listen on 127.0.0.1 only; passwords are made at the first start and lie in .tohum/secrets. MLflow has logins: the
administrator is the line in .tohum/secrets/mlflow. Ports: TOHUM_POSTGRES_PORT, TOHUM_MLFLOW_PORT, TOHUM_PREFECT_PORT.

up starts what does not run and waits until all answer; a service that ends is started again. down stops them. status
exits with 1 where one does not answer. backup writes everything, also the passwords, to FILE; restore, with the stack
down, puts it in place and keeps the stack from before.
"""

from pathlib import Path

import click

from pipeline.cli._command import UserPath, shown, verb

GROUP = "Servers and tracking"
ORDER = 59


@verb("tohum stack up", "tohum stack status", "tohum stack backup backups/monday.tar", "tohum stack down")
@click.argument("action", type=click.Choice(["up", "down", "status", "backup", "restore"]))
@click.argument("file", required=False, type=UserPath())
def command(action: str, file: Path | None) -> int:
    """Runs one of the actions."""
    from pipeline.orchestration import stack, stack_backup

    if (file is not None) != (action in ("backup", "restore")):
        raise click.UsageError(f"{action} {'takes no FILE' if file else 'needs a FILE'}")
    if file is not None:
        act = stack_backup.backup if action == "backup" else stack_backup.restore
        click.echo(act(file).replace(str(file), shown(file)))
        return 0
    if action == "down":
        click.echo(stack.down())
        return 0
    if action == "up":
        click.echo("\n".join(stack.up()))
        click.echo("params.yaml: runtime.tracking.uri is this MLflow's address, for deployments; then tohum worker")
        return 0
    lines, well = stack.status()
    click.echo("\n".join(lines))
    return 0 if well else 1
