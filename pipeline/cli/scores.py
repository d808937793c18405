"""Shows the models with their scores and gates.

`make repro` ends with it.
"""

from pipeline.cli._command import verb

GROUP = "Run the pipeline"
ORDER = 14


@verb("tohum scores")
def command() -> None:
    """Prints the table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from pipeline import config, integrity
    from pipeline.paths import GATES
    from pipeline.reporting import report

    params, console = config.load(), Console()
    table = Table(title="Models of this pipeline", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("model", "made by", "score", "value", "gate"):
        table.add_column(column)
    sentences = []
    for name in params.evaluations:
        row = report.summary(name, params)
        verdict = GATES / name / "verdict.json"
        gate = "not run"
        if verdict.exists():
            judged = integrity.read_json(verdict)
            gate = "[green]passed" if judged["passed"] else "[red]failed"
            gate += "[/]\n[yellow]warned" if report.warnings(judged) else ""
        scores = [(score, f"{value:.4f}") for score, value in row.scores]
        if row.baseline is not None:
            scores.append((f"TF-IDF: {row.baseline.outcome}", f"{row.baseline.baseline_accuracy:.4f}"))
            sentences += [] if row.baseline.verdict == "better" else [f"{name}: {row.baseline.sentence}."]
        names, values = ("\n".join(column) for column in zip(*scores, strict=True)) if scores else ("", "")
        table.add_row(name, "\n".join(filter(None, [row.made_by, row.trained_on])), names, values, gate)
    console.print(table)
    if sentences:
        console.print("\n".join(sentences), highlight=False, style="yellow")
    console.print("compare   reports/report.html\ngates     reports/gates/<name>/page.html")
    console.print("costs     tohum report    registry  tohum ui    talk  tohum chat chat-lora")
