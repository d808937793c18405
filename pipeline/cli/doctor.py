"""Lists what crashes left behind, and checks the environment.

Looks at temporary files and folders, DVC's locks, processes whose guard was killed, records not delivered to MLflow,
saved training states, models without their base, free space, and the environment against requirements.lock. With
--mend everything that no living process uses is cleaned up; a possible only copy is never removed. Damage inside files
is found by `tohum fsck`. Exits with 1 if something is left to mend.
"""

from pathlib import Path

import click

from pipeline.cli._command import verb

GROUP = "Keep the project whole"
ORDER = 70


@verb("tohum doctor", "tohum doctor --mend")
@click.option("--mend", is_flag=True, help="Clean up what no living process uses.")
def command(mend: bool) -> int:
    """Examines the project in the working folder."""
    from pipeline.orchestration import doctor

    lines = doctor.examine(Path(), mend)
    for line in lines:
        click.echo(f"{line.state:<5} {line.topic:<16} {line.text}")
    left = sum(line.state == "mend" for line in lines)
    click.echo(f"doctor: {left} to mend" if left else "doctor: healthy")
    return 1 if left else 0
