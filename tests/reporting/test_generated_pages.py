"""The map of the code and the reference of params.yaml: made from docstrings, current as committed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.config import plugins
from pipeline.errors import UserError
from pipeline.paths import CODE, PROFILES
from pipeline.reporting import docstrings, generated_pages, params_page
from pipeline.reporting.generated_pages import BEGIN, END, MAP, PARAMETERS

DEFAULT = yaml.safe_load((CODE / PROFILES / "embedded.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the sources and pages."""
    for folder in ("pipeline", "stages", PROFILES):
        shutil.copytree(CODE / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(CODE / "pyproject.toml", tmp_path)
    generated_pages.write(tmp_path)
    return tmp_path


def keys() -> dict[str, params_page.Key]:
    return {key.path: key for key in params_page.Reference(DEFAULT).all_keys()}


def test_committed_pages_are_current() -> None:
    assert [str(page) for page in generated_pages.outdated(CODE)] == [], "run `tohum docs`"


def test_outdated_names_the_map_after_a_changed_docstring(project: Path) -> None:
    path = project / "pipeline/tuners/lora.py"
    first = path.read_text(encoding="utf-8").split("\n")[0]
    path.write_text(
        path.read_text(encoding="utf-8").replace(first, '"""Another sentence (Hu et al. 2021). A second.', 1)
    )
    pages = generated_pages.outdated(project)
    assert list(pages) == [MAP]
    assert "| [`lora`](tuners/lora.py) | Another sentence (Hu et al. 2021) |" in pages[MAP]


def test_outdated_names_the_reference_after_a_changed_default(project: Path) -> None:
    path = project / PROFILES / "embedded.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("people: 16", "people: 17", 1))
    assert list(generated_pages.outdated(project)) == [PARAMETERS]


def test_write_keeps_the_text_around_the_generated_part(project: Path) -> None:
    path = project / MAP
    path.write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    assert generated_pages.write(project) == [MAP]
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Mine\n")
    assert text.endswith(f"{END}\nafter\n")
    assert f"{BEGIN}\n\nImports go down only" in text
    assert "\ncontracts\n   ↓\nmodel · prompts\n" in text
    assert "\n### pipeline\n" in text
    assert generated_pages.write(project) == []


def test_outdated_refuses_a_page_without_marks(project: Path) -> None:
    (project / MAP).write_text("# Mine\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"pipeline/README\.md: its generated part is not marked"):
        generated_pages.outdated(project)


def test_outdated_refuses_a_file_without_docstring(project: Path) -> None:
    (project / "pipeline/tuners/mine.py").write_text("X = 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"tuners/mine\.py: no docstring"):
        generated_pages.outdated(project)


def test_the_map_names_every_file() -> None:
    text = (CODE / MAP).read_text(encoding="utf-8")
    files = [path for top in ("pipeline", "stages") for path in (CODE / top).rglob("*.py") if path.stat().st_size]
    links = {path: f"]({os.path.relpath(path, CODE / 'pipeline')}) |" for path in files}
    missing = [path for path, link in links.items() if link not in text and path.name != "__init__.py"]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One sentence.", "One sentence"),
        ("One sentence. Another one.", "One sentence"),
        ("Linear head (Radford et al. 2018). More.", "Linear head (Radford et al. 2018)"),
        ("After Ilharco et al. The base and more. Second.", "After Ilharco et al. The base and more"),
        ("Runs `python -m x. Y` now. Then more.", "Runs `python -m x. Y` now"),
        ("A phrase over\ntwo lines\n\nA paragraph.", "A phrase over two lines"),
        ("Learning rate 3.5 times. More.", "Learning rate 3.5 times"),
        ("Settings, as follows:\n\n    a: 1", "Settings, as follows"),
    ],
)  # fmt: skip
def test_first_sentence_ends_at_the_first_full_stop_of_the_prose(text: str, sentence: str) -> None:
    assert docstrings.first_sentence(text) == sentence


def test_the_reference_has_every_key_of_the_default_profile() -> None:
    """Walks through the default profile itself, not through the sections that the reference is made from."""
    documented = keys()
    maps = [key.path for key in documented.values() if key.type.startswith("map")]
    maps = [path for path in maps if not any(key.startswith(f"{path}.") for key in documented)]
    maps.append("search.<name>.space")  # its keys are dotted paths

    def known(path: str) -> bool:
        """Settings of a variant stand below its key alone (`tuner.rank`); an empty map has keys below it."""
        return any(f".{path}".endswith(f".{key}") or key.startswith(f"{path}.") for key in documented)

    unknown = [path for path in leaves(DEFAULT) if not known(path)]
    free = [path for path in unknown if any(f".{key}." in f".{path}" for key in maps)]
    assert free == unknown
    assert len(free) < 20


def leaves(params: object, path: str = "") -> Iterator[str]:
    """The path of every value in a params file; a name that the user chose is `<name>`."""
    if not isinstance(params, dict) or not params:
        yield path
        return
    chosen = path.rpartition(".")[2] in ("finetune", "evaluations", "thresholds", "sources", "search")
    for key, value in params.items():
        yield from leaves(value, f"{path}.{'<name>' if chosen else key}".removeprefix("."))


def test_every_key_of_the_reference_has_a_sentence() -> None:
    """The sentence is the string below the field in its section, or else that of the section."""
    assert [key.path for key in params_page.Reference(DEFAULT).all_keys() if not key.sentence] == []


def test_a_key_of_a_number_has_type_bounds_and_default() -> None:
    key = keys()["pretrain.schedule.final_share"]
    assert key.type == "float in [0, 1]"
    assert key.values == [0.0]
    assert key.sentence


def test_a_key_of_a_variant_lists_the_files_of_its_folder() -> None:
    key = keys()["finetune.<name>.tuner.name"]
    assert key.choices == plugins.choices("tuners")
    assert key.values == ["full", "layers", "lora"]


def test_a_variants_settings_have_the_sentence_below_the_field() -> None:
    key = keys()["tuner.rank_stabilised"]
    assert key.values == [False]
    assert key.sentence
    source = " ".join((CODE / "pipeline/tuners/lora.py").read_text(encoding="utf-8").split())
    assert key.sentence in source


def test_a_setting_without_a_sentence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(params_page, "field_docstrings", lambda _section: {})
    with pytest.raises(UserError, match=r"pipeline/tuners/lora\.py: field rank of Settings has no sentence"):
        params_page.Reference(DEFAULT).of_variant("tuners", "lora")


def test_every_folder_of_variants_is_in_the_reference() -> None:
    """A folder with files that have a class Settings is one whose variants params.yaml names."""
    with_settings = {
        path.parent.relative_to(CODE / "pipeline").as_posix()
        for path in (CODE / "pipeline").rglob("*.py")
        if "\nclass Settings(Section)" in path.read_text(encoding="utf-8") and path.name != "__init__.py"
    }
    assert with_settings <= set(params_page.PART_FOLDERS.values())
