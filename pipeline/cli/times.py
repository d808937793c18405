"""The closing table of `make repro`: models, scores, where the pages are. With --times: where the time went."""

import sys

from rich.console import Console
from rich.table import Table

from pipeline import config, integrity
from pipeline.entry import entry
from pipeline.paths import RUNS
from pipeline.reporting import report


def main() -> None:
    """Prints what was made, or the time table."""
    console = Console()
    if "--times" in sys.argv[1:]:
        console.print(times())
        return
    params = config.load()
    table = Table("model", "made by", "score", "value", "gate", title="What was made")
    for name in params.evaluations:
        scores = report.leading_scores(name)
        keys, values = "\n".join(key for key, _ in scores), "\n".join(f"{value:.4f}" for _, value in scores)
        verdict = report.REPORTS / "gates" / name / "verdict.json"
        passed = verdict.exists() and integrity.read_json(verdict)["passed"]
        verdict_shown = "[green]passed" if passed else "[red]failed"
        table.add_row(name, report.made_by(name, params), keys, values, verdict_shown)
    console.print(table)
    console.print("compare   reports/report.html\ngates     reports/gates/<name>/page.html")
    console.print("costs     make report    registry  make ui    talk  make chat MODEL=chat-lora")


def times() -> Table:
    """Seconds per stage, in the order of the graph: in all, in the work itself, and the share that is neither."""
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


if __name__ == "__main__":
    entry(main)
