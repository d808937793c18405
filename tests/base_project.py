"""A small world with withdrawn records and a base model trained on it, as DVC leaves it."""

import shutil
from pathlib import Path

import yaml

from pipeline.paths import CODE as ROOT
from tests import damage, scratch

STAGES = ("code", "download", "validate raw", "tokenize", "validate tokens", "sample", "validate samples", "pretrain")
NAMES = tuple(stage.replace("validate ", "validate@") for stage in STAGES)


def run_and_commit(stages: tuple[str, ...] = STAGES) -> None:
    """Runs these stages in the working folder, and lets DVC record their outs."""
    for stage in stages:
        damage.run(stage)
    names = [stage.replace("validate ", "validate@") for stage in stages]
    done = scratch.dvc(Path(), "commit", "--force", "--quiet", *names)
    assert done.returncode == 0, done.stderr


def make(root: Path) -> None:
    """Makes the project in the new folder `root`, the working folder, up to the base model."""
    raw = damage.small_params()
    raw["download"]["sources"]["world"] |= {"planted": ["withdrawn"], "documents": 120, "labelled": 40}
    raw["pretrain"]["schedule"]["steps"], raw["pretrain"]["validation"]["patience"] = 6, 0  # states after 2 and 4
    raw |= {"finetune": {}, "merge": {}, "evaluations": {"base": raw["evaluations"]["base"]}}
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    shutil.copy(ROOT / "dvc.yaml", root)
    shutil.copy(ROOT / ".dvcignore", root)
    (root / "inputs").mkdir()
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert scratch.dvc(root, "init", "--no-scm", "--quiet").returncode == 0
    run_and_commit()
