"""A model that is stored as an adapter only is registered whole: a served version needs no base."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import files
from pipeline.cli import _talk
from pipeline.errors import UserError
from pipeline.inference import predictor
from pipeline.model import adapter_folder, checkpoint
from pipeline.registry import MODEL, Registry, admission
from pipeline.registry import card as model_card
from pipeline.tuners.lora import LoRA
from tests import variants
from tests.commands import tohum
from tests.registries import evaluate, make_model, params, register
from tests.specs import SPAM, labels_of, written

TEXTS = ["Merhaba, İzmir nasıl?", "free prize now"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A project with a base and models/spam-lora, an adapter without its base; models/whole is the same model."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("project")
    os.chdir(folder)
    make_model("base")
    origin = adapter_folder.Origin(
        repository="org/name", revision="0" * 40, sha256="1" * 64, licence="MIT", unchanged=False
    )
    files.write_json(Path("models/base/origin.json"), origin.model_dump())
    Path("models/base/manifest.json").unlink()
    model, tuner = checkpoint.load(Path("models/base")), LoRA(variants.settings("tuners", "lora"))
    generator = torch.Generator().manual_seed(3)
    model.add_score(2, generator)
    tuner.apply(model, generator, list)
    with torch.no_grad():
        for parameter in tuner.groups(model)[0]["params"]:
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    base = adapter_folder.describe(Path("models/base"))
    common: dict[str, Any] = {
        "tokenizer": Path("tokenizer"), "labels": labels_of(SPAM), "metadata": written([SPAM]),
        "adapter": lambda place: tuner.save_adapter(model, place, base.peft_name),
    }  # fmt: skip
    checkpoint.save(model, Path("models/spam-lora"), base=base, **common)
    checkpoint.save(tuner.merge(model), Path("models/whole"), **common)
    evaluate("spam-lora")
    yield Registry(params())
    os.chdir(before)


def test_register_makes_one_version_with_all_weights_that_answers_alike(project: Registry, tmp_path: Path) -> None:
    """Lost otherwise: a server would need the base, at a place that only the project has."""
    version, new = register(project, "spam-lora")
    assert new
    assert version.tags[MODEL] == files.sha256_of(Path("models/whole"))
    again, new = register(project, "spam-lora")
    assert (again.version, new) == (version.version, False)
    folder = project.download(f"models:/tohum-spam-lora/{version.version}")
    assert (folder / "model.safetensors").is_file()
    assert (folder / "adapter/adapter_model.safetensors").is_file()
    moved = shutil.copytree(folder, tmp_path / "alone")
    assert predictor.answer(moved, TEXTS) == predictor.answer(Path("models/spam-lora"), TEXTS)
    assert _talk._same_model(Path("models/spam-lora"), folder)
    assert not _talk._same_model(Path("models/spam-lora"), Path("models/base"))


def test_export_writes_the_folder_that_merged_true_stores(
    project: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way to a model that transformers reads alone."""
    target = tmp_path / "exported"
    assert tohum("export", "spam-lora", "--folder", str(target)) == 0
    assert files.sha256_of(target) == files.sha256_of(Path("models/whole"))
    assert "spam-lora with all weights, float32" in capsys.readouterr().out
    with pytest.raises(UserError, match="is there already; name a new folder"):
        tohum("export", "spam-lora", "--folder", str(target))
    with pytest.raises(UserError, match="models/spam: no such model"):
        tohum("export", "spam", "--folder", str(tmp_path / "other"))


def test_the_card_names_the_base_and_the_open_weights(project: Registry) -> None:
    """The hash of such a folder covers the adapter and, through base.json, the base."""
    card = model_card.render(admission.admit("spam-lora", params()), "tohum-spam-lora")
    base = adapter_folder.describe(Path("models/base"))
    assert "| stored as | `adapter only` |" in card
    assert f"| base sha256 | `{base.sha256}` |" in card
    assert "| open weights | `org/name` |" in card
    assert "| open weights licence | `MIT` |" in card
    assert "Starts from open weights, trained by their authors on data that this card does not know" in card
    assert "Trained only on the sources above" not in card


def test_register_refuses_an_adapter_whose_base_changed(project: Registry) -> None:
    """The evaluated model is that of the old base."""
    facts = admission.admit("spam-lora", params())
    shutil.copytree("models/base", "aside")
    make_model("base", seed=9)
    try:
        with pytest.raises(UserError, match="its adapter was trained on a base whose weights"):
            Registry(params()).register(_other(facts), Path("models/spam-lora"))
    finally:
        shutil.rmtree("models/base")
        shutil.move("aside", "models/base")


def _other(facts: Any) -> Any:
    """Facts that no registered version has."""
    from dataclasses import replace

    return replace(facts, sha256="0" * 64)
