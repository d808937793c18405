"""Proposes size, tokens and rates for minutes or operations.

Size, tokens, batch and learning rates follow from the law that `tohum scaling` fitted. Minutes are converted by the
speed of the proposed shape itself, timed here with the compute of params.yaml.
"""

import click

from pipeline.cli._command import verb

GROUP = "Find better settings"
ORDER = 42
AGAIN = "params.yaml is as it was, and no timing is kept; run the command again"


@verb("tohum budget --minutes 10", "tohum budget --flops 1e15 --apply")
@click.option("--minutes", type=float, help="Of training on this machine, with the compute of params.yaml.")
@click.option("--flops", type=float, help="Floating-point operations of training.")
@click.option("--apply", is_flag=True, help="Write the proposal into params.yaml.")
def command(minutes: float | None, flops: float | None, apply: bool) -> None:
    """Shows, and with --apply writes, the proposal."""
    from pipeline.studies import needs

    if (minutes is None) == (flops is None):
        raise click.UsageError("give one of --minutes and --flops")
    for name, value in (("--minutes", minutes), ("--flops", flops)):
        if value is not None and value <= 0:
            raise click.UsageError(f"{name} is {value:g}, expected more than 0")
    needs.scaling_law()  # before torch is loaded, which takes seconds
    from pipeline import config
    from pipeline.studies import budget

    budget.propose(config.load(), minutes, flops, apply)
