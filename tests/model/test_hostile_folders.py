"""Folders that other people made: each kind of damage or malice once; the full count is in tests/torture.

If these fail, a downloaded folder ends in a traceback, takes the machine's memory, reads files beside itself, or runs.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pipeline import config, files, foreign, tokenizer
from pipeline.errors import UserError
from pipeline.model import checkpoint, inspection, open_weights
from pipeline.model.weights import WEIGHTS
from pipeline.paths import CODE as ROOT
from pipeline.training.start import start as start_of
from tests import hostile
from tests.torture import hostile_folders


@pytest.mark.parametrize("seed", range(4))
def test_load_reads_a_good_folder(seed: int, tmp_path: Path) -> None:
    """Refusing every folder would pass all other tests here."""
    made = hostile.good(tmp_path / "model", seed)
    assert hostile.refusal(made) is None
    hostile.shard(made)
    assert hostile.refusal(made) is None


@pytest.mark.parametrize("name", hostile.CATALOGUE)
def test_load_refuses_a_hostile_folder_in_a_sentence(name: str, tmp_path: Path) -> None:
    assert hostile_folders.attempt(name, 0, tmp_path) is None


def test_hostile_folders_are_as_many_as_promised() -> None:
    assert len(hostile.CATALOGUE) >= 30


def linked(folder: Path, store: Path, name: str) -> Path:
    """The folder with its weights in a store of content-named objects, as a cache keeps them."""
    target = store / name
    target.parent.mkdir(parents=True)
    (folder / WEIGHTS).rename(target)
    (folder / WEIGHTS).symlink_to(os.path.relpath(target, folder))
    return folder


def test_load_follows_links_within_a_download_cache(tmp_path: Path) -> None:
    """Lost otherwise: no download of the hub and no checkout with cache.type symlink could be read."""
    commit = tmp_path / "hub/models--a--b/snapshots" / ("a" * 40)
    commit.parent.mkdir(parents=True)
    made = hostile.good(commit, 0)
    assert hostile.refusal(linked(made, tmp_path / "hub/models--a--b/blobs", "b" * 64)) is None
    made = hostile.good(tmp_path / "other", 0)
    assert hostile.refusal(linked(made, tmp_path / ".dvc/cache/files/md5/ab", "c" * 30)) is None
    made = hostile.good(tmp_path / "third", 0)
    said = hostile.refusal(linked(made, tmp_path / "home", "c" * 30))
    assert said is not None
    assert "is a link out of its folder" in said


def test_tokenizer_refuses_hostile_files(tmp_path: Path) -> None:
    """The folder that `Tokenizer.load` reads is handed on with a model, so it is foreign as well."""
    tokenizer.train(["ışık gün"] * 30, 270, "gpt2").save(tmp_path / "good")
    settings = files.read_json(tmp_path / "good/tohum-tokenizer.json")
    changes = [
        [], "x", {}, settings | {"special": []}, settings | {"special": {"<|endoftext|>": 10**12}},
        settings | {"engine": "x"}, settings | {"engine": ["x"]}, settings | {"pattern": "(" * 50},
        settings | {"pattern": 5}, settings | {"end_of_text": "nowhere"}, settings | {"pad": None},
        {"engine": "characters", "alphabet": 5, "method": "characters", "special": {"<|endoftext|>": 1}},
    ]  # fmt: skip
    for number, change in enumerate(changes):
        folder = shutil.copytree(tmp_path / "good", tmp_path / str(number))
        (folder / "tohum-tokenizer.json").write_text(json.dumps(change))
        with pytest.raises(UserError, match=str(folder)) as caught:
            tokenizer.Tokenizer.load(folder)
        assert "\n" not in str(caught.value)
    for name in ("tohum-tokenizer.json", "ranks.tiktoken"):
        folder = shutil.copytree(tmp_path / "good", tmp_path / f"{name}-linked")
        (folder / name).unlink()
        (folder / name).symlink_to("/etc/passwd")
        with pytest.raises(UserError, match="is a link out of its folder"):
            tokenizer.Tokenizer.load(folder)


def test_verify_covers_every_file_that_is_read(tmp_path: Path) -> None:
    """Lost otherwise: an adapter laid beside one of our models would be put into it, every hash intact."""
    made = hostile.good(tmp_path / "model", 0)
    names = [path for path in made.rglob("*") if path.is_file()]
    files.write_json(made / "manifest.json", {one.relative_to(made).as_posix(): files.sha256_of(one) for one in names})
    inspection.verify(made)
    hostile.CATALOGUE["an_adapter_that_is_no_numbers"](made, random.Random(0))
    with pytest.raises(UserError, match=r"adapter/adapter_config\.json: manifest\.json does not list it"):
        checkpoint.load(made)


def pretrain(folder: Path, start: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """`python -m stages.pretrain` in a folder that has nothing but a params.yaml."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    whole = {"kind": "folder", "path": "model", "revision": None, "sha256": None, "licence": "MIT"}
    params["pretrain"]["start"] = whole | {"zero_projections": False} | start
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.pretrain"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.slow
def test_stage_prints_one_line_for_a_hostile_folder(tmp_path: Path) -> None:
    """What a user sees: exit code 1 and one sentence; no traceback, nothing half made."""
    made = hostile.good(tmp_path / "model", 2)
    pin = foreign.pin(foreign.hashes(made))
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"rope_theta": 5e5, "layer_norm_epsilon": 1e-3}))
    changed = pretrain(tmp_path, {"sha256": pin})
    (made / WEIGHTS).unlink()
    (made / WEIGHTS).symlink_to("/dev/zero")
    linked = pretrain(tmp_path, {})
    for run, words in ((changed, "other files beside them"), (linked, "is a device, expected a plain file")):
        assert run.returncode == 1
        assert run.stderr.startswith("error: model")
        assert words in run.stderr
        assert run.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "params.yaml", "tokenizer"]


def test_load_ignores_files_that_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole of a terabyte or a link to a device beside the model: hashing the whole folder would never end."""
    monkeypatch.chdir(tmp_path)
    made = hostile.good(tmp_path / "model", 0)
    pin = open_weights.pin(made)
    (made / "README.md").unlink()
    (made / "README.md").symlink_to("/dev/zero")
    (made / "notes").mkdir()
    (made / "notes/model.json").symlink_to("/proc/kcore")
    with (made / "optimizer.bin").open("wb") as stream:
        stream.truncate(2**40)
    recipe = config.load(ROOT / "params.yaml").pretrain
    start = recipe.start.model_copy(update={"kind": "folder", "path": str(made), "sha256": pin})
    load, inputs = start_of(recipe.model_copy(update={"start": start}))
    assert {path.name for path in inputs} >= {"config.json", WEIGHTS, "tokenizer.json"}
    assert not {"README.md", "optimizer.bin"} & {path.name for path in inputs}
    assert load(torch.Generator(), torch.device("cpu")).config.vocab_size == 280
