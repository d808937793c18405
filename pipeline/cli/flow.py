"""Runs the graph as a Prefect flow: side by side, with retries.

STAGE names a stage to bring up to date with all it needs; without one the whole graph runs, and models are registered.
One task run per stage; DVC decides which stages are stale, Prefect when they run. Without PREFECT_API_URL a temporary
server is started for this run. With --branch the working folder stays as it is: the run takes the newest commit, pushes
its data (`dvc push`) and commits dvc.lock and params.yaml on a branch of its own.
"""

import os
import sys
from typing import Any

import click

from pipeline.cli._command import verb

GROUP = "Run the pipeline"
ORDER = 13
AGAIN = "the next run continues"


def _setting(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """`pretrain.schedule.steps=50` as a path and its value; as many as there are."""
    import yaml

    values = {}
    for text in texts:
        path, equals, value = text.partition("=")
        try:
            if not (path and equals):
                raise ValueError
            values[path.strip()] = yaml.safe_load(value)
        except (ValueError, yaml.YAMLError):
            raise click.BadParameter(
                f"{text!r}, expected a dotted path and a value, such as pretrain.schedule.steps=50"
            ) from None
    return values


@verb(
    "tohum flow",
    "tohum flow evaluate --max-parallel 2",
    "tohum flow --branch --set pretrain.schedule.steps=50",
    "tohum flow --profile files --set pretrain.schedule.steps=50 --approve",
)
@click.argument("stages", nargs=-1, metavar="[STAGE]...")
@click.option("--force", is_flag=True, help="Run every stage even if nothing changed.")
@click.option("--max-parallel", type=click.IntRange(min=1), metavar="N", help="Stages side by side at most.")
@click.option("--approve", is_flag=True, help="Start a review of each new candidate in Prefect, after registering.")
@click.option("--register/--no-register", default=True, help="Register the models whose gate passed, at the end.")
@click.option("--branch", is_flag=True, help="Work on a checkout of its own; save the run as branch run/<id>.")
@click.option(
    "--profile", "profiles", multiple=True, metavar="NAME", help="Run with this profile; params.yaml is put back."
)
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", callback=_setting,
              help="A setting of params.yaml during the run.")  # fmt: skip
def command(  # noqa: PLR0913 - each is an option
    stages: tuple[str, ...], force: bool, max_parallel: int | None, approve: bool, register: bool,
    branch: bool, profiles: tuple[str, ...], settings: dict[str, Any],
) -> int:  # fmt: skip
    """Runs the flow under a guard: whichever process is killed, no training and no temporary server goes on."""
    from pipeline.orchestration.process import under_guard

    under_guard("flow", sys.argv[2:])  # before the imports of Prefect, which cost seconds
    # a first start migrates an empty database; Prefect's own 20 s are too few on a busy machine
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    from pipeline.orchestration import flow, flow_train

    return flow.run(
        flow_train.train if branch else flow.tohum,
        targets=list(stages) or None, force=force, max_parallel=max_parallel, approve=approve, registration=register,
        profile=list(profiles) or None, set=settings,
    )  # fmt: skip
