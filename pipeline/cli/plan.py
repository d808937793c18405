"""Shows which stages `dvc repro` would run, why, and for how long.

Nothing of the project is run or written. Minutes and memory are from each stage's last run; a training that never ran
with these settings is foretold from its shape, its records and a short timing, kept in .tohum; any other stage that
never ran has a question mark. Exits with 1 where a file that a stage would read is missing, or where a training cannot
fit in this machine's memory.
"""

import click

from pipeline.cli._command import verb

GROUP = "Run the pipeline"
ORDER = 10


@verb("tohum plan", "tohum plan finetune", "tohum plan evaluate@spam-lora")
@click.argument("stages", nargs=-1, metavar="[STAGE]...")
def command(stages: tuple[str, ...]) -> int:
    """Shows these stages and all they need; without a name the whole graph."""
    from pipeline.orchestration import plan

    return plan.show(stages)
