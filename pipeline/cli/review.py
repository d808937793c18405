"""Shows the candidate's card beside the champion's numbers.

Ends with the command that approves exactly these files. With --page it writes all of it as one page for a browser.
"""

import click

from pipeline.cli._command import shown, verb

GROUP = "Register and review models"
ORDER = 52


@verb("tohum review spam-lora", "tohum review spam-lora --page")
@click.argument("model")
@click.option("--page", is_flag=True, help="Write reports/review/MODEL.html, in report.language of params.yaml.")
def command(model: str, page: bool) -> None:
    """Prints the review, or writes its page; every file was read and compared first."""
    from pipeline.cli._registry import opened

    with opened() as registry:
        if page:
            from pipeline.registry import review_page

            click.echo(shown(review_page.write(registry, model)))
        else:
            click.echo(registry.review(model))
