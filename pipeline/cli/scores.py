"""Shows the models with their scores and gates.

`make repro` ends with it.
"""

import click

from pipeline.cli._command import shown, spoken, verb

GROUP = "Run the pipeline"
ORDER = 14


@verb("tohum scores")
def command() -> None:
    """Prints the table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from pipeline import config, integrity
    from pipeline.paths import GATES, REPORTS
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
    talker = "chat-lora" if "chat-lora" in params.evaluations else list(params.evaluations)[-1]
    lines = {
        "compare": shown(REPORTS / "report.html"),
        "gates": shown(GATES / "<name>" / "page.html"),
        "talk": spoken(f"chat {talker}"),
        "costs": spoken("report"),
        "runs": spoken("ui"),
    }
    click.echo("\n".join(f"{name:<9} {line}" for name, line in lines.items()))
