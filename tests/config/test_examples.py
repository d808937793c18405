"""Example settings: read from a variant's own fields, valid, and complete."""

from pathlib import Path

import pytest

from pipeline.config import plugins
from pipeline.config.recipe import AXES
from pipeline.errors import UserError

FOLDERS = [*AXES.values(), "merging", "evaluation"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_variant_has_valid_examples(folder: str) -> None:
    """Lost otherwise: a variant would be untested."""
    for name in plugins.choices(folder):
        settings = plugins.settings_class(folder, name)
        for example in plugins.examples(folder, name):
            assert settings.model_validate(example).model_dump().keys() == example.keys()


def test_examples_vary_one_field_at_a_time() -> None:
    first, *others = plugins.examples("tuners", "lora")
    assert first == plugins.example("tuners", "lora")
    assert others == [first | {"rank_stabilised": True}, first | {"decompose": True}]


def test_examples_name_the_file_and_the_field_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tuners").mkdir()
    code = "from pipeline.config.section import Section\n\n\nclass Settings(Section):\n    width: int\n"
    (tmp_path / "tuners/wide.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(plugins, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"pipeline/tuners/wide.py: Settings.width has no example value; .*examples="):
        plugins.examples("tuners", "wide")


HEAD = "from typing import Literal\n\nfrom pipeline.config.section import Section\n\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            f'{HEAD}Target = Literal["a"]\n\n\nclass Settings(Section):\n    target: Target\n',
            r"broken\.py:9: name 'Target' is not defined; Settings may use only names from typing, pydantic",
        ),
        ("class Settings(Section:\n", r"broken\.py:1: .*; correct the file"),
        ("X = 1\n", r"broken\.py: it has no `class Settings\(Section\)`"),
    ],
)
def test_settings_class_names_file_and_line_of_a_broken_variant(
    code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tuners").mkdir()
    (tmp_path / "tuners/broken.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(plugins, "ROOT", tmp_path)
    with pytest.raises(UserError, match=words):
        plugins.settings_class("tuners", "broken")


def test_load_names_the_function_that_a_variant_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("pipeline.ordering.shuffled.build")
    with pytest.raises(UserError, match=r"ordering/shuffled\.py: it has no function `build`; write one as in"):
        plugins.load("ordering", "shuffled")
