"""A study without its inputs says so at once: loading torch first takes seconds, a wrong command takes hours."""

from pathlib import Path

import pytest
import yaml

from pipeline import config, files
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.studies import needs
from tests.commands import tohum


@pytest.fixture(autouse=True)
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """An empty project whose params compare one method over two seeds."""
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    for section in ("finetune", "evaluations"):
        raw[section] |= {f"lora-s{seed}": raw[section]["spam-lora"] for seed in (1, 2)}
    Path("params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return config.load()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("fastest",), "run `dvc repro sample` first"),
        (("scaling",), "run `dvc repro sample` first"),
        (("ablation",), "run `dvc repro sample` first"),
        (("budget", "--minutes", "1"), "`tohum scaling` makes it"),
        (("which",), "3 of 3 models have no result yet (base, lora-s1, lora-s2); run `make repro` first"),
        (("chat", "base"), "models/base: no such model; one of: none yet, run `make repro`"),
        (("search", "nope"), "found 'nope'; one of: spam-lora"),
    ],
)
def test_command_names_the_missing_input_before_it_loads_torch(
    command: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOHUM_GUARDED", "1")  # search starts itself anew under the guard
    monkeypatch.setitem(__import__("sys").modules, "torch", None)  # importing it is an error
    with pytest.raises(UserError) as error:
        tohum(*command)
    assert words in str(error.value)


def test_methods_names_both_ways_to_a_comparison_when_no_recipe_has_seeds(params: Params) -> None:
    left = {name: recipe for name, recipe in params.finetune.items() if "-s" not in name}
    with pytest.raises(UserError, match=r"tohum which FILE, minutes.*tohum profile methods, make repro"):
        needs.methods(params.model_copy(update={"finetune": left}))


def test_needs_pass_when_everything_is_there(params: Params) -> None:
    for name in ("base", "lora-s1", "lora-s2"):
        files.write_json(Path(f"reports/evaluation/{name}/metrics.json"), {})
    files.write_json(needs.SCALING_LAW, {})
    for folder in ("data/samples/documents", "data/tokens/tokenizer"):
        Path(folder).mkdir(parents=True)
    needs.methods(params)
    needs.samples()
    needs.scaling_law()


def test_chat_names_the_models_of_a_try_too() -> None:
    Path(".tohum/try/models").mkdir(parents=True)
    files.write_json(Path("models/spam-lora/config.json"), {})
    with pytest.raises(UserError, match=r"one of: spam-lora; a try's: tohum --project .tohum/try chat MODEL"):
        tohum("chat", "spam-full")
