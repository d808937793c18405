"""Stages that an edit of the code makes stale, as JSON: the edits are made in a copy of a project that has run.

    python -m tests.bench.stale [--project .] [--profile NAME ...]

The copy holds the project's tracked files and none of its outs. Every out of the graph is a placeholder that
`dvc commit` accepts, as if all had run, so that minutes become seconds; stage `code` alone, where there is one, runs.
After each edit the stages that `dvc status` names are counted (not those behind them), and the edit is taken back. The
edits: a new file that params.yaml does not name in every folder of variants; a comment or a docstring in files that
many stages run; a real change in a tuner, in a measure and in code that only observes.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIANTS = (
    "tasks", "losses", "tuners", "weighting", "ordering", "optimizers", "merging", "evaluation", "data/sources",
    "data/formats", "data/augment", "gates",
)  # fmt: skip
"""Folders in which a file is a choice in params.yaml."""
COMMENTED = ("model/gpt.py", "tokenizer/encoders.py", "training/private.py", "inference/cuda_graph.py", "contracts.py")
UNUSED = 'UNUSED = 1\n"""A new variant that params.yaml does not name."""\n'


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stale", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path(), help="a checkout, default: this one")
    parser.add_argument("--profile", nargs="+", default=[], metavar="NAME", help="params.yaml of these profiles")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "project"
        copied(options.project.resolve(), root, options.profile)
        number = committed(root)
        found: dict[str, Any] = {edit: stale_after(root, path, text) for edit, path, text in edits(root)}
    counts = {edit: len(stages) for edit, stages in found.items()}
    few = {edit: stages for edit, stages in found.items() if 0 < len(stages) < number / 3}
    print(json.dumps({"bench": "stale", "stages": number, "stale": counts, "which": few}, indent=1))


def copied(project: Path, root: Path, profiles: list[str]) -> None:
    """The project's tracked files at `root`, as a DVC project."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=project, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (project / name).is_file() and not name.startswith(".dvc/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project / name, root / name)
    dvc(root, "init", "--no-scm", "--quiet")
    if profiles:
        applied = [sys.executable, "-m", "pipeline.config.profiles", *profiles, "--force"]
        subprocess.run(applied, cwd=root, check=True, capture_output=True)


def committed(root: Path) -> int:
    """Placeholders for every out, accepted by DVC; the number of stages but `code`."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        stages = list(repo.index.stages)
        names = {stage.name for stage in stages}
        paths = {dep.fs_path for stage in stages for dep in stage.deps if hasattr(dep, "fs_path")}
        outs = [Path(out.fs_path) for stage in stages for out in stage.outs if stage.name != "code"]
    if "code" in names:
        dvc(root, "repro", "--single-item", "code")
    for path in map(Path, sorted(paths)):  # first those inside an out, which is a folder then
        if not path.exists() and any(out in path.parents for out in outs):
            written(path)
    for out in outs:
        if not out.exists():
            written(out)
    dvc(root, "commit", "--force")
    if left := stale(root):
        raise SystemExit(f"{root}: stale before any edit: {left}")
    return len(names - {"code"})


def written(path: Path) -> None:
    """A placeholder; a path without a suffix is a folder with one in it."""
    if not path.suffix:
        path = path / "placeholder"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{path.name}\n", encoding="utf-8")


def edits(root: Path) -> Iterator[tuple[str, Path, str]]:
    """What is done, to which file, its new text."""
    package = root / "pipeline"
    for folder in VARIANTS:
        if (package / folder).is_dir():
            yield f"new unused file in {folder}/", package / folder / "unused.py", UNUSED
    for name in COMMENTED:
        path = package / name
        if path.exists():
            yield f"comment in {name}", path, path.read_text(encoding="utf-8") + "# a comment\n"
    for name, old, new in (
        ("model/gpt.py", '"""', '"""Reworded: '),
        ("tuners/lora.py", "return ", "return 0 or "),
        ("evaluation/perplexity.py", "return ", "return 0 or "),
        ("tracking/run.py", "return ", "return 0 or "),
    ):
        path = package / name
        before, mark, after = path.read_text(encoding="utf-8").partition(old)
        kind = "docstring" if mark == '"""' else "real change"
        yield f"{kind} in {name}", path, before + new + after


def stale_after(root: Path, path: Path, text: str) -> list[str]:
    """The stale stages once the file has this text; then all is as before."""
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.write_text(text, encoding="utf-8")
    try:
        if "code" in stale(root):
            dvc(root, "repro", "--single-item", "code")
        return stale(root)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before, encoding="utf-8")


def stale(root: Path) -> list[str]:
    """What `dvc status` names."""
    return sorted(json.loads(dvc(root, "status", "--json") or "{}"))


def dvc(root: Path, *arguments: str) -> str:
    """What a dvc command prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"dvc {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
