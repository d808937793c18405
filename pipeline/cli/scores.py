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
    from rich.console import Console
    from rich.table import Table

    from pipeline import config, integrity
    from pipeline.paths import GATES, REPORTS
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
    talker = "chat-lora" if "chat-lora" in params.evaluations else list(params.evaluations)[-1]
    lines = {
        "compare": shown(REPORTS / "report.html"),
        "gates": shown(GATES / "<name>" / "page.html"),
        "talk": spoken(f"chat {talker}"),
        "costs": spoken("report"),
        "runs": spoken("ui"),
    }
    click.echo("\n".join(f"{name:<9} {line}" for name, line in lines.items()))
