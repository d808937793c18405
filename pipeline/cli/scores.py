"""Shows the models with their scores and gates.

`make repro` ends with it.
"""

from pipeline.cli._command import verb

GROUP = "Run the pipeline"
ORDER = 14


@verb("tohum scores")
def command() -> None:
    """Prints the table."""
    from rich.console import Console
    from rich.table import Table

    from pipeline import config, integrity
    from pipeline.paths import GATES
    from pipeline.reporting import report

    params, console = config.load(), Console()
    table = Table("model", "made by", "score", "value", "gate", title="Models of this pipeline")
    for name in params.evaluations:
        scores = report.leading_scores(name)
        keys, values = "\n".join(key for key, _ in scores), "\n".join(f"{value:.4f}" for _, value in scores)
        verdict = GATES / name / "verdict.json"
        gate = "not run"
        if verdict.exists():
            gate = "[green]passed" if integrity.read_json(verdict)["passed"] else "[red]failed"
        table.add_row(name, report.made_by(name, params), keys, values, gate)
    console.print(table)
    console.print("compare   reports/report.html\ngates     reports/gates/<name>/page.html")
    console.print("costs     tohum report    registry  tohum ui    talk  tohum chat chat-lora")
