"""`tohum VERB ...` in the test's own process."""

from pathlib import Path

from pipeline.cli._command import run


def tohum(*words: str, called_in: Path | None = None) -> int:
    """Runs a command line in the working directory; returns its exit code, lets a verb's UserError through."""
    return run(list(words), called_in)
