"""Fits how the loss falls with size and tokens on your documents.

Trains the sizes, tokens, learning rates and batches of infra/scaling.yaml, fits a law and a rule for rates, and draws
the law in reports/scaling.html; `tohum budget` proposes from it. Trials that ran are kept, so the study can be stopped.
"""

from pipeline.cli._command import verb

GROUP = "Find better settings"
ORDER = 43
AGAIN = "the same command continues with the trials that are left"


@verb("tohum scaling")
def command() -> None:
    """Trains the trials that are left, fits, shows, writes the page."""
    from pipeline.studies import needs

    needs.samples()  # before torch is loaded, which takes seconds
    from pipeline import config
    from pipeline.studies import scaling

    scaling.run(config.load())
