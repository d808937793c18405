"""Compares every default of pretrain with its alternatives.

One is changed at a time, over five seeds, on the same tokens: every variation of infra/ablation.yaml is trained on your
documents and shown beside params.yaml as it is, with the held-out loss and how much it differs over the same seeds.
Trials that ran are kept, so the study can be stopped.
"""

import click

from pipeline.cli._command import verb

GROUP = "Find better settings"
ORDER = 44
AGAIN = "the same command continues with the trials that are left"


@verb("tohum ablation", "tohum ablation --seeds 2 --only norms --only attention")
@click.option("--seeds", type=click.IntRange(1, 99), default=5, show_default=True, metavar="N", help="Of each.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this variation; may be repeated.")
def command(seeds: int, only: tuple[str, ...]) -> None:
    """Trains the trials that are left and shows the table."""
    from pipeline.studies import needs

    needs.samples()  # before torch is loaded, which takes seconds
    from pipeline import config
    from pipeline.studies import ablation

    ablation.study(config.load(), seeds, list(only) or None)
