"""Shows seconds, speed and memory of every stage's last run.

`rest` is a stage's time besides its work: the interpreter's start, imports, hashing, records of the run.
"""

from typing import TYPE_CHECKING

from pipeline.cli._command import verb

if TYPE_CHECKING:
    from rich.table import Table

GROUP = "Run the pipeline"
ORDER = 15


@verb("tohum times")
def command() -> None:
    """Prints the table."""
    from rich.console import Console

    Console().print(times())


def times() -> "Table":
    """Seconds per stage, in the order of the graph: in all, in the work itself, and the rest."""
    from rich.table import Table

    from pipeline.paths import RUNS
    from pipeline.reporting import report

    table = Table("stage", "seconds", "work", "rest", "tokens/s", "peak MiB")
    total = work = 0.0
    for record in report.records(RUNS):
        seconds, own = record["seconds_total"], record["seconds_work"]
        total, work = total + seconds, work + own
        speed = f"{record['tokens_per_second']:,.0f}" if "tokens_per_second" in record else ""
        memory = f"{record['peak_memory_mib']:.0f}"
        table.add_row(record["stage"], f"{seconds:.1f}", f"{own:.1f}", f"{seconds - own:.1f}", speed, memory)
    share = (total - work) / total if total else 0.0
    table.add_row("all", f"{total:.1f}", f"{work:.1f}", f"{total - work:.1f} ({share:.0%})", "", "", style="bold")
    return table
