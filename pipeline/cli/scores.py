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
    table = Table("model", "made by", "score", "value", "baseline", "gate", title="Models of this pipeline")
    for name in params.evaluations:
        row = report.summary(name, params)
        verdict = GATES / name / "verdict.json"
        gate = "not run"
        if verdict.exists():
            judged = integrity.read_json(verdict)
            gate = "[green]passed" if judged["passed"] else "[red]failed"
            if count := report.warnings(judged):
                gate += f"[/]\n[yellow]{count} warning{'s' if count > 1 else ''}"
        scores, values = "\n".join(score for score, _ in row.scores), "\n".join(f"{v:.4f}" for _, v in row.scores)
        made_by = "\n".join(filter(None, [row.made_by, row.trained_on]))
        table.add_row(name, made_by, scores, values, row.baseline, gate)
    console.print(table)
    console.print("compare   reports/report.html\ngates     reports/gates/<name>/page.html")
    console.print("costs     tohum report    registry  tohum ui    talk  tohum chat chat-lora")
