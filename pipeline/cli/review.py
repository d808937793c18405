"""Shows the candidate's card beside the champion's numbers.

Ends with the command that approves exactly these files. With --page it writes all of it as one page for a browser.
With --ask it starts a review in Prefect, which waits for a person without a process (`tohum prefect`, `tohum worker`).
"""

import click

from pipeline.cli._command import shown, verb

GROUP = "Register and review models"
ORDER = 52


@verb("tohum review spam-lora", "tohum review spam-lora --page", "tohum review spam-lora --ask")
@click.argument("model")
@click.option("--page", is_flag=True, help="Write reports/review/MODEL.html, in report.language of params.yaml.")
@click.option("--ask", is_flag=True, help="Start a review in Prefect that waits for a person.")
def command(model: str, page: bool, ask: bool) -> None:
    """Prints the review, or writes its page; every file was read and compared first."""
    if ask:
        click.echo(_ask(model))
        return
    from pipeline.cli._registry import opened

    with opened() as registry:
        if page:
            from pipeline.registry import review_page

            click.echo(shown(review_page.write(registry, model)))
        else:
            click.echo(registry.review(model))


def _ask(model: str) -> str:
    import os

    from pipeline.errors import UserError
    from pipeline.tracking import credentials

    os.environ |= {k: v for k, v in credentials.client_environment().items() if k.startswith("PREFECT_")}
    from pipeline.orchestration import flow_review  # Prefect reads its variables when it is imported

    if error := flow_review.unreachable():
        raise UserError(f"Prefect's server does not answer ({error}); start it (tohum prefect), or set PREFECT_API_URL")
    begun = flow_review.begin(model)
    if not begun:
        raise UserError(f"Prefect has no deployment {flow_review.DEPLOYMENT}: start a worker (tohum worker)")
    return begun
