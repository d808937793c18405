"""Delivers the records of runs that wait for MLflow.

A background process delivers the records in .tohum/tracking while stages run; this waits until all are there, for
instance after a server was away. Exits with 1 where some are left.
"""

import click

from pipeline.cli._command import verb

GROUP = "Servers and tracking"
ORDER = 64


@verb("tohum deliver", "tohum deliver --timeout 600")
@click.option("--timeout", type=click.FloatRange(min=0), default=120.0, show_default=True, help="Seconds to wait.")
def command(timeout: float) -> int:
    """Delivers and counts."""
    from pipeline.tracking import sender

    return sender.drain(timeout_s=timeout)
