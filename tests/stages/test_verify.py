"""A version against its project: lost otherwise, a model is vouched for that was made from other data or settings."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from pipeline import config, files, integrity
from pipeline.errors import UserError
from pipeline.studies.verification import chain_of, verify
from pipeline.tracking import lineage
from pipeline.training import kept
from pipeline.training.replay import replay, replay_stretch
from pipeline.training.schedule import learning_rate_factor
from pipeline.training.state import State
from tests import damage
from tests.base_project import NAMES
from tests.commands import tohum

STATES = Path("models/base.states")
FACTOR = "pipeline.training.loop.learning_rate_factor"


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


def _state() -> None:
    damage.flip(STATES / "step-00000004/tensors.safetensors", 900, 3)


def _model() -> None:
    damage.flip(Path("models/base/model.safetensors"), 900, 3)


CHANGES: dict[str, tuple[Callable[[], None], set[str]]] = {
    "one setting": (_setting, {"commit", "pretrain: pretrain"}),
    "one line of the loop": (_code, {"pretrain: code"}),
    "a file is missing": (_missing, {"download: out data/raw"}),
    "one bit of a kept state": (_state, {"pretrain: out models/base.states"}),
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


def test_replay_stretch_gives_equal_bits_between_the_kept_states(version: Any) -> None:
    found = replay_stretch("base", config.load())
    assert found is not None
    assert (found.first, found.last, found.differing, found.sentence) == (2, 4, (), "")
    assert found.tensors > 10


def _rate() -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    raw["pretrain"]["optimizer"]["learning_rate"] *= 1.01
    Path("params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


def _forged(update: int, kind: str) -> None:
    """One bit of the first tensor of a kind in a kept state, with every hash made anew."""
    values, progress = kept.at("base", update)
    name = min(name for name in values if name.startswith(kind) and values[name].dim() > 1)
    values[name].view(-1).view(torch.uint8)[0] ^= 1
    State(STATES, "base").save(values, progress)
    integrity.write_manifest(STATES)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda patch: _rate(), "model.blocks.0"),
        (
            lambda patch: patch.setattr(FACTOR, _later(learning_rate_factor)),
            "model.blocks.0",
        ),
        (lambda patch: _forged(4, "model."), "model."),
        (lambda patch: _forged(4, "optimizer."), "optimizer."),
        (lambda patch: _forged(2, "model."), "model."),
    ],
    ids=["learning rate", "line of code", "weight of the end", "momentum of the end", "weight of the beginning"],
)
def test_replay_stretch_names_the_first_tensor_that_differs_when_something_changed(
    version: Any, monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None], named: str
) -> None:
    change(monkeypatch)
    found = replay_stretch("base", config.load())
    assert found is not None
    assert found.differing
    assert found.differing[0].startswith(named)
    assert f"from update 2 to 4: {found.differing[0]} differs from the kept state" in found.sentence
    assert "on the same kind of machine: code, data or settings are not those" in found.sentence


def _later(factor: Callable[..., float]) -> Callable[..., float]:
    """A change of code that acts in the middle only, so that the replay of the beginning does not see it."""
    return lambda schedule, number: factor(schedule, number) * (1.01 if number == 3 else 1.0)


def test_replay_of_the_beginning_does_not_see_what_acts_later(version: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FACTOR, _later(learning_rate_factor))
    assert replay("base", config.load()).sentence == ""


def test_replay_stretch_names_the_file_when_a_bit_of_a_state_flipped(version: Any) -> None:
    _state()
    files._known.clear()
    with pytest.raises(UserError, match=r"models/base.states/step-00000004/tensors.safetensors: sha256 is"):
        replay_stretch("base", config.load())


def test_replay_stretch_gives_none_when_fewer_than_two_states_are_kept(version: Any) -> None:
    files.remove(STATES / "step-00000002")
    assert replay_stretch("base", config.load()) is None


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
    assert "replayed: equal bits from update 2 to 4, " in printed
    assert tohum("forget", "--consent", "withdrawn", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["states"] == ["models/base.states"]
    [held] = planned["versions"]
    assert (held["name"], held["state"], held["aliases"]) == (made.name, "trained on it", ["candidate"])
    _setting()
    assert tohum("verify", f"models:/{made.name}@candidate", "--replay") == 1
    printed = capsys.readouterr().out
    assert "differs: pretrain: pretrain: params.yaml has other settings" in printed
    assert "differs: after update 1 the state is " in printed
    assert "differs: from update 2 to 4: " in printed
