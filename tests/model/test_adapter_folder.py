"""adapter_folder.py: a folder without weights gives the merged model's bits, and nothing without its exact base."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import files
from pipeline import tokenizer as vocabularies
from pipeline.config.recipe import HEADLESS
from pipeline.errors import UserError
from pipeline.model import adapter_folder, checkpoint
from pipeline.model.adapter_folder import Base, Origin
from pipeline.model.gpt import GPT
from pipeline.prompts.spec import TEXT, TaskSpec
from pipeline.tokenizer import Tokenizer
from pipeline.tuners import Adapter
from tests import variants
from tests.models import shape
from tests.specs import written
from tests.variants import Variant

FAMILIES = ("gpt2", "llama", "qwen3", "arcee", "nanochat")
CLASSIFY = TaskSpec(name="classify", labels=("ham", "spam"), max_tokens=40, max_prompt_tokens=40)
ADAPTERS = [variant for variant in variants.variants("tuners") if isinstance(variant.build(), Adapter)]
LORA = next(variant for variant in ADAPTERS if variant.name == "lora")
IDS_BT = torch.arange(12).view(2, 6)
REVISION = "0123456789" * 4


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small vocabulary."""
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    vocabularies.train(["a text, a question, another text. Bu mesaj iyi, şu kötü. " * 20], 320, "gpt2").save(folder)
    return folder


def save_base(models: Path, words: Path, family: str = "llama", **changes: Any) -> None:
    """models/base, with drawn weights."""
    size = {"vocab_size": Tokenizer.load(words).vocab_size, "context_length": 160, "tie_embeddings": False}
    model = GPT(shape(family, **size | changes), torch.Generator().manual_seed(3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    checkpoint.save(model, models / "base", tokenizer=words, metadata=written([TEXT]))


def save_tuned(models: Path, variant: Variant, labels: bool, base: Base | None = None) -> GPT:
    """models/whole and models/slim: one adapter of random weights over models/base, stored in both forms."""
    model, tuner, generator = checkpoint.load(models / "base"), variant.build(), torch.Generator().manual_seed(4)
    if labels:
        model.add_score(2, torch.Generator().manual_seed(5))
    tuner.apply(model, generator, lambda text: [1, 2, 3])
    with torch.no_grad():
        for parameter in tuner.groups(model)[0]["params"]:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    base = base or adapter_folder.describe(models / "base")

    def write_adapter(folder: Path) -> None:
        tuner.save_adapter(model, folder, base.peft_name)
        adapter_folder.add_revision(folder, base)

    common: dict[str, Any] = {
        "tokenizer": models / "base", "labels": ["ham", "spam"] if labels else None,
        "metadata": written([CLASSIFY if labels else TEXT]), "adapter": write_adapter,
    }  # fmt: skip
    checkpoint.save(tuner.merge(model), models / "whole", **common)
    checkpoint.save(model, models / "slim", base=base, **common)
    return model.eval()


def output(model: GPT) -> torch.Tensor:
    return model(IDS_BT) if model.score is None else model.classify(IDS_BT)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("labels", [False, True], ids=["language", "labels"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", ADAPTERS, ids=str)
def test_load_gives_the_bits_of_the_merged_model(
    variant: Variant, family: str, labels: bool, tie: bool, tmp_path: Path, words: Path
) -> None:
    """Lost otherwise: another model would be served than was evaluated, and DVC would call them equal."""
    if (labels and family in HEADLESS) or (tie and (variant.varied or family not in ("gpt2", "llama"))):
        pytest.skip("no such model, or covered by the other cases")
    save_base(tmp_path, words, family, tie_embeddings=tie)
    trained = save_tuned(tmp_path, variant, labels)
    assert not list((tmp_path / "slim").rglob("model.safetensors"))
    slim, whole = checkpoint.load(tmp_path / "slim"), checkpoint.load(tmp_path / "whole")
    assert slim.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(slim.state_dict()[key], value) for key, value in whole.state_dict().items())
    assert all(parameter.requires_grad for parameter in slim.parameters())
    torch.testing.assert_close(output(slim), output(trained), atol=1e-4, rtol=0)
    assert slim.room() == whole.room()
    checkpoint.write_whole(tmp_path / "slim", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_load_refuses_an_adapter_whose_base_is_missing_or_another(tmp_path: Path, words: Path) -> None:
    """Lost otherwise: an adapter on other weights answers, and answers nonsense."""
    save_base(tmp_path, words)
    save_tuned(tmp_path, LORA, False)
    (tmp_path / "base").rename(tmp_path / "aside")
    with pytest.raises(
        UserError, match=r"slim: holds an adapter only, and its base .*base is not there; .*dvc pull mod"
    ):
        checkpoint.load(tmp_path / "slim")
    save_base(tmp_path, words, n_layers=3)
    with pytest.raises(UserError, match=r"trained on a base whose weights .* sha256 [0-9a-f]{64}, .*dvc checkout mode"):
        checkpoint.load(tmp_path / "slim")
    shutil.rmtree(tmp_path / "base")
    shutil.move(tmp_path / "aside", tmp_path / "base")
    damaged = bytearray((tmp_path / "base/model.safetensors").read_bytes())
    damaged[-5] ^= 1
    (tmp_path / "base/model.safetensors").write_bytes(damaged)
    with pytest.raises(UserError, match=r"base/model\.safetensors: sha256 is .*changed or\s+damaged"):
        checkpoint.load(tmp_path / "slim")


def test_load_takes_another_text_of_the_base_as_the_same_base(tmp_path: Path, words: Path) -> None:
    """The hash is that of the network: a reworded README of the base leaves its adapters as they are."""
    save_base(tmp_path, words)
    save_tuned(tmp_path, LORA, False)
    (tmp_path / "base/README.md").write_text("new words")
    (tmp_path / "base/manifest.json").unlink()
    checkpoint.load(tmp_path / "slim")


def test_load_reads_the_downloaded_open_weights_of_an_unchanged_base(
    tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without models/base: the pinned snapshot has the same numbers, in whatever precision they were published."""
    monkeypatch.chdir(tmp_path)
    models = tmp_path / "models"
    save_base(models, words)
    snapshot = tmp_path / ".tohum/downloads/models--org--name/snapshots" / REVISION
    shutil.copytree(models / "base", snapshot)
    pin = adapter_folder.foreign.pin(adapter_folder.foreign.hashes(snapshot))
    origin = Origin(repository="org/name", revision=REVISION, sha256=pin, licence="MIT", unchanged=True)
    files.write_json(models / "base/origin.json", origin.model_dump())
    (models / "base/manifest.json").unlink()
    save_tuned(models, LORA, False)
    config = json.loads((models / "slim/adapter/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/name", REVISION)
    expected = checkpoint.load(models / "slim").state_dict()
    shutil.rmtree(models / "base")
    state = checkpoint.load(models / "slim").state_dict()
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    (snapshot / "config.json").write_text((snapshot / "config.json").read_text() + " ")  # not the pinned files
    with pytest.raises(UserError, match="is not there"):
        checkpoint.load(models / "slim")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("base.json", {"name": "../base"}, "name"),
        ("base.json", {"name": ".."}, "name"),
        ("base.json", {"sha256": "0"}, "sha256"),
        ("base.json", {"code": "x"}, "code is not a known key"),
        ("adapter/adapter_config.json", {"r": 10**9}, "r is 1000000000, expected a whole number"),
        ("adapter/adapter_config.json", {"r": 3}, "have shapes .* use the base model the adapter was made for"),
        ("adapter/adapter_config.json", {"lora_alpha": "x"}, "lora_alpha is 'x', expected a number"),
        ("adapter/adapter_config.json", {"rank_pattern": {"q": 3}}, "sets rank_pattern, expected LoRA of one rank"),
        ("adapter/adapter_config.json", {"use_dora": True}, "have shapes"),
        ("adapter/adapter_config.json", {"peft_type": "VERA"}, "peft_type is 'VERA'"),
        ("config.json", {"id2label": {"0": "ham"}, "label2id": {"ham": 0}}, r"is \[2, 16\], a llama model with 1 la"),
    ],
)  # fmt: skip
def test_load_refuses_a_damaged_or_hostile_folder(
    name: str, change: dict[str, Any], message: str, tmp_path: Path, words: Path
) -> None:
    """A folder from elsewhere has no manifest of ours; it must not read outside or add what does not fit."""
    save_base(tmp_path, words)
    save_tuned(tmp_path, LORA, True)
    path = tmp_path / "slim" / name
    files.write_json(path, json.loads(path.read_text()) | change)
    (tmp_path / "slim/manifest.json").unlink()
    with pytest.raises(UserError, match=message):
        checkpoint.load(tmp_path / "slim")


def test_load_refuses_an_adapter_only_folder_with_weights(tmp_path: Path, words: Path) -> None:
    """Two answers to the question which weights count."""
    save_base(tmp_path, words)
    save_tuned(tmp_path, LORA, False)
    (tmp_path / "slim/manifest.json").unlink()
    shutil.copyfile(tmp_path / "base/model.safetensors", tmp_path / "slim/model.safetensors")
    with pytest.raises(UserError, match=r"slim: has base\.json and model\.safetensors, expected an adapter only or a"):
        checkpoint.load(tmp_path / "slim")


def test_load_refuses_a_base_that_has_an_adapter_of_its_own(tmp_path: Path, words: Path) -> None:
    """Its virtual tokens would be dropped without a word."""
    save_base(tmp_path, words)
    prompt = next(variant for variant in ADAPTERS if variant.name == "prompt")
    save_tuned(tmp_path, prompt, False)
    shutil.copytree(tmp_path / "whole/adapter", tmp_path / "base/adapter")
    (tmp_path / "base/manifest.json").unlink()
    with pytest.raises(UserError, match="virtual tokens or bottleneck adapters"):
        checkpoint.load(tmp_path / "slim")


def test_write_whole_copies_a_whole_folder(tmp_path: Path, words: Path) -> None:
    save_base(tmp_path, words)
    checkpoint.write_whole(tmp_path / "base", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(tmp_path / "base")


def test_merged_lora_weights_do_not_depend_on_the_number_of_threads() -> None:
    """Lost otherwise: a chat with one thread would use another model than the stage with two."""
    generator = torch.Generator().manual_seed(0)
    weight, a, b = (torch.randn(size, generator=generator) for size in ((301, 517), (7, 517), (301, 7)))
    magnitude, threads = weight.norm(dim=1), torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(adapter_folder.lora_merged(weight, a, b, 2.0, magnitude))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)
