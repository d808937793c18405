"""Renders reports/costs.html: models with times, memory, energy.

The graph's own stage `report` renders reports/report.html, which does not change from run to run.
"""

import click

from pipeline.cli._command import shown, verb

GROUP = "Run the pipeline"
ORDER = 16


@verb("tohum report")
def command() -> None:
    """Writes the page and prints its path."""
    from pipeline import config, files
    from pipeline.paths import REPORTS
    from pipeline.reporting import report

    page = REPORTS / "costs.html"
    files.write_text(page, report.render_costs(config.load().report))
    click.echo(shown(page))
