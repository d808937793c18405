"""The journal's consented requests and ratings as a file under inputs/ of a run's checkout, named in its params.yaml.

The snapshot is exported from the project's journal, put under `dvc add`, so that it travels with the branch, and named
with its hash in `download.sources`, beside the sources that are there.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from pipeline import config, files
from pipeline.errors import UserError
from pipeline.orchestration.process import PROGRAM, Processes
from pipeline.orchestration.run_checkout import RunCheckout
from pipeline.paths import INPUTS, PARAMS

_INDENT = "    "
_KINDS = ("ratings", "instructions")


def snapshot(own: RunCheckout, processes: Processes, day: str) -> Path:
    """Exports the project's journal to inputs/ratings-<day>.jsonl of the checkout, tracked by DVC; returns the path.

    Raises:
        StageError: the journal cannot be exported.
        UserError: it holds nothing that may be learned from.
    """
    path = INPUTS / f"ratings-{day}.jsonl"
    (own.folder / INPUTS).mkdir(exist_ok=True)
    command = [PROGRAM, "--project", str(own.project), "journal", "export", str(own.folder / path)]
    processes.run(command, timeout_s=None, tell=lambda _: None)
    if not path.is_file() or not path.stat().st_size:
        raise UserError(
            f"{own.project / 'journal'}: no request or rating that people have consented to store; there is nothing to "
            "retrain on yet"
        )
    done = subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", str(path)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"dvc add {path}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
    return path


def add(path: Path) -> list[str]:
    """Adds sources that read the snapshot to params.yaml of the working folder; returns their names.

    Raises:
        UserError: a params.yaml that config refuses afterwards; nothing is written then.
    """
    text = PARAMS.read_text(encoding="utf-8")
    raw: Any = yaml.safe_load(text)
    sources = {f"{path.stem}-{kind}": _settings(path, kind) for kind in _KINDS}
    new = inserted(text, {name: value for name, value in sources.items() if name not in raw["download"]["sources"]})
    raw["download"]["sources"] |= sources
    if yaml.safe_load(new) != raw:
        raise UserError(f"{PARAMS}: download.sources is written by an alias or a merge key; write it out")
    config.check(raw, PARAMS.name)
    files.write_text(PARAMS, new)
    return list(sources)


def inserted(text: str, sources: dict[str, Any]) -> str:
    """The text of params.yaml with these sources after the last one; every other byte stays."""
    if not sources:
        return text
    node: Any = yaml.compose(text, yaml.SafeLoader)
    for key in ("download", "sources"):
        node = next(value for name, value in node.value if name.value == key)
    if node.flow_style:
        raise UserError(f"{PARAMS}: download.sources is on one line; write a source a line")
    last = node
    while not (isinstance(last, yaml.ScalarNode) or last.flow_style):
        last = last.value[-1][1] if isinstance(last.value[-1], tuple) else last.value[-1]
    end = text.find("\n", last.end_mark.index)
    end = len(text) if end < 0 else end
    column = node.value[0][0].start_mark.column
    block = yaml.safe_dump(sources, allow_unicode=True, sort_keys=False)
    lines = "".join(f"\n{' ' * column}{line}" for line in block.rstrip("\n").split("\n"))
    return text[:end] + lines + text[end:]


def _settings(path: Path, kind: str) -> dict[str, Any]:
    return {
        "name": "journal",
        "licence": "the users' own words, kept here",
        "consent": "consent",
        "weight": 1.0,
        "path": path.as_posix(),
        "sha256": files.sha256_of(path),
        "kind": kind,
    }
