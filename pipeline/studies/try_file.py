"""A try of a user's own file: the whole graph with a small model and few steps, in .tohum/try."""

import shlex
from pathlib import Path

import yaml

from pipeline.paths import INPUTS, WORK
from pipeline.studies.guess import guess
from pipeline.studies.sizing import TRY
from pipeline.studies.workspace import fit, params, repro, workspace

FOLDER = WORK / "try"


def run(data: Path) -> None:
    """Prints the guesses about the file and runs the graph on it.

    Raises:
        UserError: a file in which nothing can be recognised, or a stage that failed.
    """
    guessed = guess(data)
    print(f"{data}: guessed")
    print("\n".join(f"  {sentence}" for sentence in guessed.sentences), flush=True)
    raw = params(INPUTS / data.name, guessed)
    raw["runtime"]["tracking"] |= {"enabled": True, "experiment": "try"}  # for `tohum ui`
    workspace(data, guessed, FOLDER, raw)
    fit(FOLDER, raw, guessed.kind, TRY)
    repro(FOLDER)


def closing(data: Path) -> list[str]:
    """The words after a try: its models, pages and settings, and the steps to a real run."""
    talker = _models()[-1]
    commands = {
        f"chat {talker}": f"talk to a model; also {', '.join(_models()[:-1])}",
        "scores": "the table above",
        "report": "time, memory and energy of every stage",
        "ui": "its runs in MLflow",
    }
    width = max(map(len, commands))
    return [
        "",
        f"The try is a project of its own in {FOLDER}; --project makes every command use it:",
        *(f"  tohum --project {FOLDER} {words:<{width}}  {purpose}" for words, purpose in commands.items()),
        f"  pages: {FOLDER}/reports/report.html, {FOLDER}/reports/gates/raw/page.html; settings: {FOLDER}/params.yaml",
        "A try has a small model, few updates and open gates. For a real run:",
        f"  1. tohum profile files --data {shlex.quote(str(data))}   writes params.yaml, sized to the data",
        "  2. edit licence and consent in params.yaml",
        "  3. tohum plan, then make repro; the gates name the data to be mended",
    ]


def _models() -> list[str]:
    """The models of the last try, the base first."""
    raw = yaml.safe_load((FOLDER / "params.yaml").read_text(encoding="utf-8"))
    return list(raw["evaluations"])
