"""Writes the pages that are generated from docstrings.

The map of the code in pipeline/README.md and the reference of params.yaml in pipeline/config/README.md. With --check
nothing is written, and the exit code is 1 where a page is out of date.
"""

import click

from pipeline.cli._command import verb

GROUP = "Keep the project whole"
ORDER = 73


@verb("tohum docs", "tohum docs --check")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where a page is out of date.")
def command(check: bool) -> int:
    """Writes or checks the pages of the running code."""
    from pipeline.paths import CODE
    from pipeline.reporting import generated_pages

    pages = list(generated_pages.outdated(CODE)) if check else generated_pages.write(CODE)
    for page in pages:
        click.echo(f"{page}: out of date; run `tohum docs`" if check else f"{page}: written")
    return 1 if check and pages else 0
