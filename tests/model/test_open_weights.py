"""open_weights.py: only weights that are pinned by hash enter a run."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.config.recipe import InitialWeights
from pipeline.errors import UserError
from pipeline.files import sha256_of
from pipeline.model import checkpoint, open_weights
from tests.models import network


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small Llama folder of ours."""
    checkpoint.save(network(), tmp_path / "saved")
    return tmp_path / "saved"


def start(**fields: object) -> InitialWeights:
    defaults = {
        "kind": "folder",
        "path": None,
        "revision": None,
        "sha256": None,
        "licence": "MIT",
        "zero_projections": False,
    }
    return InitialWeights.model_validate(defaults | fields)


def test_fetch_refuses_weights_that_are_not_pinned(saved: Path, tmp_path: Path) -> None:
    """Lost otherwise: weights changed under a name would be trained on as if reviewed."""
    pin = open_weights.pin(saved)
    assert pin == sha256_of(saved)
    assert open_weights.fetch(start(path=str(saved), sha256=pin), tmp_path) == saved
    with pytest.raises(UserError, match=f"if you trust these, write {pin}"):
        open_weights.fetch(start(path=str(saved)), tmp_path)
    with pytest.raises(UserError, match="these are other weights than were pinned"):
        open_weights.fetch(start(path=str(saved), sha256="0" * 64), tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        open_weights.fetch(start(path=str(tmp_path / "x"), sha256=pin), tmp_path)
    with pytest.raises(UserError, match="open weights need kind folder or hub"):
        open_weights.fetch(start(kind="scratch"), tmp_path)


def test_origin_is_unchanged_only_for_equal_numbers(saved: Path, tmp_path: Path) -> None:
    """Lost otherwise: an adapter's config would send peft to weights that the adapter was not trained on."""
    assert open_weights.origin(start(kind="scratch"), network(), tmp_path) is None
    snapshot = tmp_path / "models--org--name/snapshots" / ("a" * 40)
    shutil.copytree(saved, snapshot)
    hub = start(kind="hub", path="org/name", revision="a" * 40, sha256=open_weights.pin(saved))
    model = checkpoint.load(saved)
    origin = open_weights.origin(hub, model, tmp_path)
    assert origin is not None
    assert (origin.repository, origin.revision, origin.licence) == ("org/name", "a" * 40, "MIT")
    assert origin.unchanged
    with torch.no_grad():
        model.blocks[1].norm1.weight[3] += 1e-6
    changed = open_weights.origin(hub, model, tmp_path)
    assert changed is not None
    assert not changed.unchanged
    trained = open_weights.origin(hub, None, tmp_path)
    assert trained is not None
    assert not trained.unchanged
    local = start(path=str(saved), sha256=open_weights.pin(saved))
    folder = open_weights.origin(local, checkpoint.load(saved), tmp_path)
    assert folder is not None
    assert folder.repository is None  # a path of this machine says nothing elsewhere


def test_fetch_refuses_a_folder_that_holds_an_adapter_only(saved: Path, tmp_path: Path) -> None:
    """Its base would be looked for beside it, wherever it lies."""
    (saved / "base.json").write_text("{}")
    with pytest.raises(UserError, match=r"saved: holds an adapter only, .*`tohum export saved --folder FOLDER`"):
        open_weights.fetch(start(path=str(saved)), tmp_path)


def change_rope(folder: Path) -> None:
    """A config with another base of its rotary angles."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_theta": 5e5}), encoding="utf-8")


def grow_adapter(folder: Path) -> None:
    """An adapter that was not there when the folder was pinned."""
    (folder / "adapter").mkdir()
    (folder / "adapter/adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}', encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", change_rope),
        ("tokenizer_config.json", lambda folder: (folder / "tokenizer_config.json").write_text("{}")),
        ("generation_config.json", lambda folder: (folder / "generation_config.json").unlink()),
        ("chat_template.jinja", lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}")),
        ("tohum.json", lambda folder: (folder / "tohum.json").write_text("{}")),
        ("adapter/adapter_config.json", grow_adapter),
    ],
)
def test_pin_covers_every_file_that_is_read(saved: Path, tmp_path: Path, name: str, change) -> None:
    """Lost otherwise: another rope_theta, end token or adapter than was reviewed would be trained on."""
    (saved / "manifest.json").unlink()  # a foreign folder has none that would notice first
    (saved / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    (saved / "README.md").write_text("a model")
    pinned = start(path=str(saved), sha256=open_weights.pin(saved))
    same = shutil.copytree(saved, tmp_path / "same")
    (same / "README.md").write_text("a better text about the model")
    assert open_weights.pin(same) == pinned.sha256
    first = shutil.copytree(saved, tmp_path / "first")
    change(first)
    with pytest.raises(UserError, match=f"is {open_weights.pin(first)}, .* other files beside them"):
        open_weights.fetch(pinned.model_copy(update={"path": str(first)}), tmp_path / "cache")
    open_weights.fetch(pinned, tmp_path / "cache")
    change(saved)
    with pytest.raises(UserError, match=f"{name} changed since they were used last"):
        open_weights.fetch(pinned, tmp_path / "cache")


def test_fetch_refuses_a_pin_of_the_weights_alone(saved: Path, tmp_path: Path) -> None:
    """Lost otherwise: a pin written for an older version would silently cover less than it seems to."""
    old = start(path=str(saved), sha256=sha256_of(saved / "model.safetensors"))
    with pytest.raises(UserError, match=f"is {open_weights.pin(saved)}, .* the hash of only the weights"):
        open_weights.fetch(old, tmp_path)


def test_fetch_downloads_a_pinned_commit_and_no_pickles(saved: Path, tmp_path: Path, monkeypatch) -> None:
    """Lost otherwise: a moving branch or a pickle could enter through the hub."""
    import huggingface_hub

    requested = {}

    def snapshot(repository: str, **options: object) -> str:
        requested.update(options, repository=repository)
        return shutil.copytree(saved, tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    pin = open_weights.pin(saved)
    pinned = start(kind="hub", path="someone/small", revision="a" * 40, sha256=pin)
    assert open_weights.fetch(pinned, tmp_path / "cache") == tmp_path / "hub"
    assert requested["revision"] == "a" * 40
    assert requested["allow_patterns"] == ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.tiktoken"]
    for revision in ("main", None, "a" * 39):
        with pytest.raises(UserError, match="expected the 40 hexadecimal digits"):
            open_weights.fetch(start(kind="hub", path="someone/small", revision=revision, sha256=pin), tmp_path)

    def offline(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"not downloaded: no route to host; check .* set pretrain\.start\.kind"):
        open_weights.fetch(pinned, tmp_path / "cache")
