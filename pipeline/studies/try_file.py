"""A try of a user's own file: the whole graph with a small model and few steps, in .tohum/try."""

import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.paths import INPUTS, WORK
from pipeline.studies.guess import Guess, Wishes
from pipeline.studies.sizing import TRY
from pipeline.studies.workspace import fit, params, repro, workspace

FOLDER = WORK / "try"


def run(data: Path, guessed: Guess) -> None:
    """Prints the guesses about the file with the source they make in params.yaml, and runs the graph on it.

    Raises:
        UserError: a stage failed.
    """
    print(f"{data}: guessed")
    print("\n".join(f"  {sentence}" for sentence in guessed.sentences))
    print(f"in params.yaml:\n{textwrap.indent(guessed.block(INPUTS / data.name), '  ')}", flush=True)
    raw = params(INPUTS / data.name, guessed)
    raw["runtime"]["tracking"] |= {"enabled": True, "experiment": "try"}  # for `tohum ui`
    workspace(data, guessed, FOLDER, raw)
    fit(FOLDER, raw, guessed.kind, TRY)
    repro(FOLDER)


def closing(data: Sequence[Path], wishes: Wishes) -> list[str]:
    """The words after a try: its models, pages and settings, and the steps to a real run.

    Args:
        data: the paths that the user gave.
        wishes: columns and kind that the user named.
    """
    *others, talker = _models()
    commands = {
        f"chat {talker}": f"talk to a model; also {', '.join(others)}" if others else "continue a text with the model",
        "scores": "the table above",
        "report": "time, memory and energy of every stage",
        "ui": "its runs in MLflow",
    }
    width = max(map(len, commands))
    profile = ["tohum", "profile", "files"]
    for option, values in {
        "--data": data, "--text": [wishes.text], "--label": [wishes.label], "--kind": [wishes.kind]
    }.items():  # fmt: skip
        profile += [word for value in values if value is not None for word in (option, str(value))]
    return [
        "",
        f"The try is a project of its own in {FOLDER}; --project makes every command use it:",
        *(f"  tohum --project {FOLDER} {words:<{width}}  {purpose}" for words, purpose in commands.items()),
        f"  pages: {FOLDER}/reports/report.html, {FOLDER}/reports/gates/raw/page.html; settings: {FOLDER}/params.yaml",
        "A try has a small model, few updates and open gates. For a real run:",
        f"  1. {shlex.join(profile)}   writes params.yaml, sized to the data",
        "  2. edit licence and consent in params.yaml",
        "  3. tohum plan, then make repro; the gates name the data to be mended",
    ]


def _models() -> list[str]:
    """The models of the last try, the base first."""
    raw = yaml.safe_load((FOLDER / "params.yaml").read_text(encoding="utf-8"))
    return list(raw["evaluations"])
