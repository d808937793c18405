"""The journal's consented requests and ratings as a file under inputs/ of a run's checkout, named in its params.yaml.

The snapshot is exported from the project's journal, put under `dvc add`, so that it travels with the branch, and named
with its hash in `download.sources`, beside the sources that are there.
"""

import shutil
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

SETTINGS = {
    "name": "journal",
    "licence": "words of the users, for this project",
    "consent": "consent",
    "weight": 1.0,
    # the model's own answers are no examples for it; only what people said about them is
    "requests": None,
    "ratings": True,
    "choices": True,
    "corrections": True,
    "labels": True,
    "language": "auto",
    "split": None,
}


def snapshot(own: RunCheckout, processes: Processes, name: str) -> Path:
    """Exports the project's journal to inputs/<name>-<run>.jsonl of the checkout, tracked by DVC; returns the path.

    The same run, started again after a kill, keeps the file that it has: its stages have read it. The journal keeps the
    ratings, since the branch may be thrown away.

    Raises:
        StageError: the journal cannot be exported, or holds nothing with consent.
        UserError: DVC refuses the file.
    """
    for pointer in sorted(INPUTS.glob(f"*-{own.folder.name[:8]}.jsonl.dvc")):
        if (kept := pointer.with_suffix("")).is_file():
            return kept
    path = INPUTS / f"{name}-{own.folder.name[:8]}.jsonl"
    exported, target = own.project / path, own.folder / path
    for folder in (exported.parent, target.parent):
        folder.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)  # of the same run, killed
    exported.unlink(missing_ok=True)
    processes.run([PROGRAM, "--project", str(own.project), "journal", "export", str(exported), "--keep"],
                  timeout_s=None, tell=lambda _: None)  # fmt: skip
    shutil.move(exported, target)
    done = subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", str(path)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"dvc add {path}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
    return path


def add(path: Path) -> str:
    """Adds a source that reads the snapshot to params.yaml of the working folder; returns its name.

    Raises:
        UserError: a params.yaml that config refuses afterwards; nothing is written then.
    """
    text = PARAMS.read_text(encoding="utf-8")
    raw: Any = yaml.safe_load(text)
    source = SETTINGS | {"path": path.as_posix(), "sha256": files.sha256_of(path)}
    if raw["download"]["sources"].get(path.stem) == source:
        return path.stem  # of the same run, killed
    new = inserted(text, {path.stem: source})
    raw["download"]["sources"] |= {path.stem: source}
    if yaml.safe_load(new) != raw:
        raise UserError(f"{PARAMS}: download.sources is written by an alias or a merge key; write it out")
    config.check(raw, PARAMS.name)
    files.write_text(PARAMS, new)
    return path.stem


def inserted(text: str, entries: dict[str, Any], section: tuple[str, ...] = ("download", "sources")) -> str:
    """The text of params.yaml with these entries after the last one of a section; every other byte stays.

    Raises:
        UserError: a section that is written on one line.
    """
    node: Any = yaml.compose(text, yaml.SafeLoader)
    for key in section:
        node = next(value for name, value in node.value if name.value == key)
    if node.flow_style:
        where = ".".join(section)
        raise UserError(f"{PARAMS}: {where} is on one line; write an entry a line ({section[-1][:-1]}: settings)")
    last = node
    while not (isinstance(last, yaml.ScalarNode) or last.flow_style):
        last = last.value[-1][1] if isinstance(last.value[-1], tuple) else last.value[-1]
    end = text.find("\n", last.end_mark.index)
    end = len(text) if end < 0 else end
    column = node.value[0][0].start_mark.column
    block = (line for name, entry in entries.items() for line in [f"{_flow(name)}:", *_settings(entry)])
    lines = "".join(f"\n{' ' * column}{line}" for line in block)
    return text[:end] + lines + text[end:]


def _settings(entry: dict[str, Any]) -> list[str]:
    """A line for each setting, as params.yaml has them: parts and lists in flow style."""
    return [f"  {name}: {_flow(value)}" for name, value in entry.items()]


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
