"""A version against its project: lost otherwise, a model is vouched for that was made from other data or settings."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pipeline import config, files
from pipeline.errors import UserError
from pipeline.studies.verification import chain_of, verify
from pipeline.tracking import lineage
from pipeline.training.replay import replay
from tests import damage
from tests.base_project import NAMES
from tests.commands import tohum


def git(*words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *words], check=True, capture_output=True, env=os.environ)


@pytest.fixture
def version(base_project: Path) -> Any:
    """The base as it would be registered from this commit."""
    params = Path("params.yaml")  # MLflow keeps one store per address in a process, so the address has the whole path
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("sqlite:///mlflow.db", f"sqlite:///{Path.cwd()}/mlflow.db"), encoding="utf-8")
    Path(".gitignore").write_text("/data/\n/models/\n/reports/\n/.dvc/\n/.tohum/\n", encoding="utf-8")
    git("init", "--quiet")
    git("add", "params.yaml", "dvc.yaml", "dvc.lock", ".gitignore")
    git("commit", "--quiet", "--message", "made")
    tags = {"tohum.model": "base", "model_sha256": files.sha256_of(Path("models/base")), **lineage.git_state()}
    tags |= {f"dvc.in.{path}": digest for path, digest in lineage.locked_inputs("pretrain").items()}
    tags |= {"dvc.out.models/base": lineage.dvc_outs()["models/base"]}
    assert base_project.is_dir()
    return SimpleNamespace(name="tohum-base", version="3", tags=tags)


def differing(version: Any) -> dict[str, str]:
    return {check.what: check.differs for check in verify(version, config.load()) if check.differs}


def test_a_version_equals_the_project_that_made_it(version: Any) -> None:
    checks = list(verify(version, config.load()))
    assert not [check for check in checks if check.differs]
    assert chain_of("pretrain") == [name for name in NAMES if name != "code"]
    compared = {check.what for check in checks}
    assert {"commit", "pretrain: pretrain", "pretrain: code", "sample: out data/samples"} <= compared
    assert {"sample: input data/tokens", "tag dvc.in.data/samples/documents", "model models/base"} <= compared


def _setting() -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    raw["pretrain"]["seed"] += 1
    Path("params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


def _code() -> None:
    path = Path("pipeline/training/loop.py")
    path.write_text(path.read_text(encoding="utf-8").replace("factor", "scale"), encoding="utf-8")


def _missing() -> None:
    Path("data/raw/documents.parquet").unlink()


def _model() -> None:
    damage.flip(Path("models/base/model.safetensors"), 900, 3)


CHANGES: dict[str, tuple[Callable[[], None], set[str]]] = {
    "one setting": (_setting, {"commit", "pretrain: pretrain"}),
    "one line of the loop": (_code, {"pretrain: code"}),
    "a file is missing": (_missing, {"download: out data/raw"}),
    "one bit of the model": (_model, {"pretrain: out models/base", "model models/base"}),
    "one bit of the data": (
        lambda: damage.flip(Path("data/samples/documents/train.bin"), 40, 1), {"sample: out data/samples"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_named_and_nothing_else(version: Any, change: str) -> None:
    apply, expected = CHANGES[change]
    apply()
    files._known.clear()  # a flipped bit leaves size and times as they were; another process reads anew
    assert set(differing(version)) == expected


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("git.commit", "commit"),
        ("dvc.in.data/samples/documents", "tag dvc.in.data/samples/documents"),
        ("dvc.out.models/base", "tag dvc.out.models/base"),
        ("model_sha256", "model models/base"),
    ],
)
def test_a_version_of_other_bytes_is_told_by_its_tag(version: Any, tag: str, expected: str) -> None:
    version.tags[tag] = "0" * 40
    assert set(differing(version)) == {expected}


def test_a_version_whose_stage_never_ran_here_names_its_commit(version: Any) -> None:
    Path("dvc.lock").unlink()
    with pytest.raises(UserError, match=f"check out the version's commit {version.tags['git.commit']}"):
        differing(version)


def test_a_replay_gives_equal_bits(version: Any) -> None:
    found = replay("base", config.load())
    assert found.step == 1  # the first validation
    assert found.sentence == ""


@pytest.mark.parametrize(
    ("machine", "expected"),
    [(None, "on the same kind of machine: code, data or settings are not those"), ("other", "another kind of machine")],
)
def test_a_replay_of_another_seed_differs_and_says_whether_the_machine_may_be_why(
    version: Any, machine: str | None, expected: str
) -> None:
    _setting()
    if machine is not None:
        run = files.read_json(Path("reports/runs/pretrain.json"))
        files.write_json(Path("reports/runs/pretrain.json"), run | {"machine": machine})
    assert expected in replay("base", config.load()).sentence


def test_a_registered_version_is_verified_replayed_and_known_to_hold_a_record(
    version: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both commands on a real store: `tohum verify VERSION --replay`, and `tohum forget`, which names the version."""
    from pipeline.registry import Registry, card

    for stage in ("evaluate base", "validate model base"):
        damage.run(stage)
    params = config.load()
    facts = card.gather("base", params, version.tags["model_sha256"])
    made, _ = Registry(params).register(facts, Path("models/base"))
    assert tohum("verify", f"{made.name}/{made.version}", "--replay") == 0
    printed = capsys.readouterr().out
    assert "comparisons from commit to model: all equal" in printed
    assert "replayed: equal bits after update 1" in printed
    assert tohum("forget", "--consent", "withdrawn", "--json") == 0
    [held] = json.loads(capsys.readouterr().out)["versions"]
    assert (held["name"], held["state"], held["aliases"]) == (made.name, "trained on it", ["candidate"])
    _setting()
    assert tohum("verify", f"models:/{made.name}@candidate") == 1
    assert "differs: pretrain: pretrain: params.yaml has other settings" in capsys.readouterr().out
