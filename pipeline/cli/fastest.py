"""Times threads, precision and compile on this machine.

A few real updates of pretrain under each setting give the time that the whole recipe would take. The settings change
the bits of every model, so all would be trained anew; nothing changes them by itself. Needs data/samples (`dvc repro
sample`).
"""

import click

from pipeline.cli._command import verb

GROUP = "Find better settings"
ORDER = 41
AGAIN = "params.yaml is as it was, and no timing is kept; run the command again"


@verb("tohum fastest", "tohum fastest --seconds 20 --apply")
@click.option("--apply", is_flag=True, help="Write the fastest into params.yaml.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True,
              help="How long each setting is timed.")  # fmt: skip
def command(apply: bool, seconds: float) -> None:
    """Measures, shows, and with --apply writes."""
    from pipeline.studies import fastest

    fastest.study(seconds, apply)
